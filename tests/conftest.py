"""What many tests stand on: the real data beside the project, where it is there."""

from pathlib import Path

import pytest

pytest_plugins = ["loopback"]

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped where a clone has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found at {SHARED_DATA}: a clone has none, the development setup does")
    return SHARED_DATA
