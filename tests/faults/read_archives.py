"""Run as a program: reads each archive named, and prints what came of it and the memory it took, one line each.

Without torch, so that the memory is the reader's own: python read_archives.py ARCHIVE...
"""

import json
import resource
import sys
from pathlib import Path

from tinyllm.corpus.documents import read_documents
from tinyllm.errors import TinyllmError


def peak_bytes() -> int:
    """Largest memory of this program; Linux's getrusage would count that of the process it was started from."""
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
