"""Process-wide settings of runtime, tested in a separate process."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tinyllm.runtime import cache_folder

COUNT_PAGES = """
import resource, sys
from tinyllm.runtime import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for turn in range(5):
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [bytearray(b"1") * 2**26 for _ in range(2)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory")
def test_kept_memory_is_not_requested_from_the_system_again() -> None:
    pages = {
        way: int(subprocess.run([sys.executable, "-c", COUNT_PAGES, way], capture_output=True, check=True).stdout)
        for way in ("keep", "give back")
    }
    assert pages["keep"] < 100 < pages["give back"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has its own folder")
def test_a_relative_cache_folder_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative path would depend on the working directory, so another user could supply the code."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_folder().is_relative_to(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert cache_folder() == tmp_path / "there" / "tinyllm"
