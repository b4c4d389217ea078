"""Prints the largest logit difference of one model for each pair of formats.

    python tools/exchange_matrix.py MODEL

A row is the format that the model is read from, itself written from MODEL; a column is the target of the export. Each
cell compares the copy with the row's own logits, so a row of a rounded format can have zeros.
"""

import sys
import tempfile
from pathlib import Path

from tinyllm.errors import TinyllmError
from tinyllm.exchange.write import TARGETS, export_model
from tinyllm.loading import read_model


def main(path: str) -> None:
    """Writes, reads and compares all pairs; prints a Markdown table."""
    original = read_model(path)
    print("| from \\ to |", " | ".join(TARGETS), "|")
    print("| --- |" + " ---: |" * len(TARGETS))
    for source in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            export_model(original, source, Path(folder) / "source")
            model = read_model(Path(folder) / "source")
            cells = []
            for target in TARGETS:
                place = Path(folder) / target
                place.mkdir()
                cells.append(f"{export_model(model, target, place / 'copy').largest_difference:.2g}")
        print(f"| {source} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except TinyllmError as error:
        sys.exit(str(error))
