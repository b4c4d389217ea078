"""What runtime sets for the whole process, seen from a process of its own."""

import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_kept_memory_is_not_asked_of_the_system_again() -> None:
    pages = {
        way: int(subprocess.run([sys.executable, "-c", COUNT_PAGES, way], capture_output=True, check=True).stdout)
        for way in ("keep", "give back")
    }
    assert pages["keep"] < 100 < pages["give back"]
