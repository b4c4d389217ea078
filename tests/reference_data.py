"""Real data for comparisons: fixtures that every clone has, and further files of the development setup.

A test never asks whether data is there. It takes the fixtures, and `development_files` adds cases to collect, so that a
clone has fewer cases and skips none.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tinyllm.tokenizer.model_proto import Piece, PieceType
from tinyllm.tokenizer.proto_writer import write_model_proto

TESTS = Path(__file__).parent
STORIES_260K = TESTS / "fixtures" / "stories260K"
"""Folder of `stories260K.bin`, `tok512.model`, `tok512.bin` and `greedy-200.txt`."""
TOKENIZERS = ("llama2", "tok4096")
"""Names of the real tokenizers whose ids are in `fixtures/tokenizer_ids`."""
_DEVELOPMENT_DATA = TESTS.parent.parent / "shared" / "data"
_DEVELOPMENT_TOKENIZERS = {"llama2": "llama2-tokenizer/tokenizer.model", "tok4096": "tok4096/tok4096.model"}


class Vector(NamedTuple):
    """A text and the ids that the real tokenizer gives it."""

    text: str
    ids: list[int]
    with_bos_and_eos: list[int]


def greedy_text() -> str:
    """The text of llama2.c for `stories260K.bin -t 0.0 -n 200`."""
    return (STORIES_260K / "greedy-200.txt").read_text(encoding="utf-8")


@cache
def read_vectors(name: str) -> list[Vector]:
    """The texts of tokenizer `name`, one of `TOKENIZERS`, with their ids."""
    return [Vector(**each) for each in _read(name)["texts"]]


@cache
def reduced_tokenizer(name: str) -> bytes:
    """A `.model` of the size of tokenizer `name`, with the pieces that its texts need at their real ids and scores.

    The other places hold pieces that no merge can reach. The texts of `read_vectors` get their real ids. Other texts
    get other ids, so a test that takes them compares two encoders of this vocabulary.
    """
    content = _read(name)
    pieces = [Piece("<unk>", 0, PieceType.UNKNOWN), Piece("<s>", 0, PieceType.CONTROL)]
    pieces += [
        Piece("</s>", 0, PieceType.CONTROL),
        *(Piece(f"<0x{byte:02X}>", 0, PieceType.BYTE) for byte in range(256)),
    ]
    kept = {int(id): Piece(text, score, PieceType.NORMAL) for id, (text, score) in content["pieces"].items()}
    for id in range(len(pieces), content["vocab_size"]):
        pieces.append(kept.get(id, Piece(f"\ue000{id}\ue000", -1e6 - id, PieceType.NORMAL)))
    return write_model_proto(
        pieces, unk_id=0, bos_id=1, eos_id=2, remove_extra_whitespaces=content["remove_extra_whitespaces"]
    )


def development_files(name: str) -> list[Path]:
    """The real `.model` of tokenizer `name` where the development setup keeps it; empty in a clone."""
    path = _DEVELOPMENT_DATA / _DEVELOPMENT_TOKENIZERS[name]
    return [path] if path.is_file() else []


def fingerprint(name: str) -> str:
    """SHA-256 of the real `.model` file of tokenizer `name`."""
    return str(_read(name)["sha256"])


@cache
def _read(name: str) -> dict[str, Any]:
    path = TESTS / "fixtures" / "tokenizer_ids" / f"{name}.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
