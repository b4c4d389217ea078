"""What benchmarks have in common: options, the file that `table.py` reads, and a tokenizer of any size."""

import argparse
import json
import struct
from pathlib import Path

from tinyllm.model_dir import read_tokenizer
from tinyllm.models import bundled_model
from tinyllm.tokenizer.codec import Tokenizer


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Options of a benchmark, --json among them; its docstring is its help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="A file for the results.")
    return parser


def write_result(path: Path | None, result: object) -> None:
    """Writes `result` as JSON, if a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")


def wide_tokenizer(vocab_size: int) -> Tokenizer:
    """The bundled tokenizer with pieces that no text has: GGUF wants one for each row of the embedding."""
    content, tokenizer = bytearray(), read_tokenizer(bundled_model())
    for id in range(tokenizer.vocab_size, vocab_size):
        text = f"<unused {id}>".encode()
        # SentencePiece's protobuf: field 1 of the model is a piece, of which 1 is the text and 2 the score.
        piece = bytes([0x0A, len(text)]) + text + b"\x15" + struct.pack("<f", -id)
        content += bytes([0x0A, len(piece)]) + piece
    return Tokenizer.from_bytes(tokenizer.model_proto + bytes(content), "wide.model")
