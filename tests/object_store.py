"""A real S3 server on loopback (moto's), with a proxy in front of it that a test can break."""

import importlib.util
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broken_network import BrokenNetwork

MISSING = [name for name in ("s3fs", "moto", "flask") if importlib.util.find_spec(name) is None]
needs_object_store = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: pip install 'tinyllm[dev]'")


class ObjectStore:
    """One bucket of the server."""

    def __init__(self, network: BrokenNetwork, driver: Any, environment: dict[str, str]) -> None:
        self.network = network
        self.environment = environment
        """Leads a process to the server, through the proxy."""
        self.bucket = f"bucket-{uuid.uuid4().hex[:8]}"
        self._driver = driver
        """Straight to the server: what a test puts there and looks at is never broken."""
        self._driver.mkdir(self.bucket)

    def address(self, *names: str) -> str:
        return "/".join(("s3:/", self.bucket, *names))

    def put(self, path: Path, *names: str) -> str:
        """Uploads a file or a folder; returns its address."""
        self._driver.put(str(path), "/".join((self.bucket, *names)), recursive=path.is_dir())
        return self.address(*names)

    def write(self, content: bytes, *names: str) -> str:
        self._driver.pipe_file("/".join((self.bucket, *names)), content)
        return self.address(*names)

    def read(self, *names: str) -> bytes:
        return bytes(self._driver.cat_file("/".join((self.bucket, *names))))

    def names(self, *folder: str) -> list[str]:
        """The names of all objects below a folder."""
        root = "/".join((self.bucket, *folder))
        return sorted(name.removeprefix(root + "/") for name in self._driver.find(root))

    def remove(self, *names: str) -> None:
        self._driver.rm("/".join((self.bucket, *names)), recursive=True)

    def get(self, target: Path, *names: str) -> Path:
        """Downloads a folder."""
        for name in self.names(*names):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(*names, name))
        return target


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def s3_network() -> Iterator[tuple[BrokenNetwork, Any]]:
    """The proxy before moto's server, which is a thread of this process, and a driver that goes past the proxy."""
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}: pip install 'tinyllm[dev]'")
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    network = BrokenNetwork(port)
    driver = s3fs.S3FileSystem(
        key=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        secret=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=f"http://127.0.0.1:{port}",
        use_listings_cache=False,
    )
    yield network, driver
    network.close()
    server.stop()


@pytest.fixture
def object_store(
    s3_network: tuple[BrokenNetwork, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectStore]:
    """An empty bucket. This process and its children find the server, and keep fetched files in the test's folder."""
    network, driver = s3_network
    environment = {
        **ENVIRONMENT,
        "AWS_ENDPOINT_URL": network.url,
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tinyllm.storage.remote.drivers.FIRST_WAIT_SECONDS", 0.02)
    yield ObjectStore(network, driver, environment)
    network.mend()


@pytest.fixture
def other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A function that gives this process the cache folder of another machine."""

    def become(name: str) -> Path:
        folder = tmp_path / "machines" / name
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        return folder

    return become
