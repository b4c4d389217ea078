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

    def __init__(self, network: BrokenNetwork, server_url: str, environment: dict[str, str]) -> None:
        self.network, self.environment = network, environment
        """`environment` leads a process to the server, through the proxy."""
        self.bucket = f"bucket-{uuid.uuid4().hex[:8]}"
        import s3fs

        # Straight to the server: what a test puts there and looks at is never broken.
        self._driver: Any = s3fs.S3FileSystem(endpoint_url=server_url, use_listings_cache=False)
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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    """The port of moto's server, which is a thread of this process."""
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}: pip install 'tinyllm[dev]'")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def object_store(s3_server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An empty bucket. This process and its children find the server, and keep fetched files in the test's folder."""
    import s3fs

    network = BrokenNetwork(s3_server)
    environment = {
        "AWS_ENDPOINT_URL": network.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tinyllm.storage.remote.drivers.FIRST_WAIT_SECONDS", 0.02)
    s3fs.S3FileSystem.clear_instance_cache()
    yield ObjectStore(network, f"http://127.0.0.1:{s3_server}", environment)
    s3fs.S3FileSystem.clear_instance_cache()
    network.close()


@pytest.fixture
def other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A function that gives this process the cache folder of another machine."""

    def become(name: str) -> Path:
        folder = tmp_path / "machines" / name
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        return folder

    return become
