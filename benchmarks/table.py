"""Prints one table of the benchmarks' files: what, ours, the peer's and the ratio; the rate of a machine's limit.

    python benchmarks/table.py build/train_step.json build/decode.json ...

A missing file is left out with one line.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    print(f"{'what':84} {'ours':>10} {'peer':>10} {'ratio':>7}")
    for path in map(Path, sys.argv[1:]):
        if not path.exists():
            print(f"{path} is left out: it is not there")
            continue
        result = json.loads(path.read_text())
        for row in result["rows"] if isinstance(result, dict) else result:
            if "rate" in row:
                print(f"{row['what']:84} {row['rate']:10,.1f}")
                continue
            print(f"{row['what']:84} {row['ours']:10,.1f} {row['peer']:10,.1f} {row['ours'] / row['peer']:7.2f}")


if __name__ == "__main__":
    main()
