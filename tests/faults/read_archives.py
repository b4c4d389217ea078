"""A program that reads each given archive and prints its result and peak memory, one line each.

It does not load torch, so that the memory is the reader's own: python read_archives.py ARCHIVE...
"""

import json
import resource
import sys
from pathlib import Path

from tinyllm.corpus.documents import read_documents
from tinyllm.errors import TinyllmError


def peak_bytes() -> int:
    """Peak memory of this program, in bytes. On Linux, getrusage would include that of the parent process."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    for path in sys.argv[1:]:
        num_documents, refusal = 0, ""
        try:
            for _ in read_documents([path], documents="file"):
                num_documents += 1
        except TinyllmError as error:
            refusal = str(error)
        print(json.dumps({"documents": num_documents, "refusal": refusal, "peak_bytes": peak_bytes()}), flush=True)
