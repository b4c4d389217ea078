"""Tests tokenizer.bin against llama2.c's own file and against the `.model` it was made from."""

import struct
from pathlib import Path

import pytest

from reference_data import STORIES_260K, reduced_tokenizer
from tinyllm.corpus.storybook import write_stories
from tinyllm.errors import FormatError
from tinyllm.exchange.tokenizer_bin import read_tokenizer_bin, tokenizer_to_bin
from tinyllm.tokenizer.codec import Tokenizer


@pytest.fixture(scope="module")
def tok512() -> Tokenizer:
    return Tokenizer.load(STORIES_260K / "tok512.model")


def test_the_export_equals_the_file_of_llama2c(tok512: Tokenizer) -> None:
    assert tokenizer_to_bin(tok512) == (STORIES_260K / "tok512.bin").read_bytes()


def test_pieces_are_read_back_with_their_types(tok512: Tokenizer) -> None:
    read = read_tokenizer_bin(STORIES_260K / "tok512.bin")
    assert read.fingerprint == tok512.fingerprint
    assert (read.unk_id, read.bos_id, read.eos_id, read.pad_id) == (0, 1, 2, None)


def test_ids_equal_the_model_s_on_a_thousand_stories(tok512: Tokenizer) -> None:
    read = read_tokenizer_bin(STORIES_260K / "tok512.bin")
    stories = list(write_stories(1000, seed=1))
    assert [read.encode(story) for story in stories] == [tok512.encode(story) for story in stories]


def test_llama_2_keeps_runs_of_spaces(tmp_path: Path) -> None:
    """Its `.model` keeps extra spaces; in a `.bin` only tokens with runs of spaces show this setting."""
    model = Tokenizer.from_bytes(reduced_tokenizer("llama2"), "llama2")
    (tmp_path / "tokenizer.bin").write_bytes(tokenizer_to_bin(model))
    read = read_tokenizer_bin(tmp_path / "tokenizer.bin")
    for text in ("two  spaces, and   three", "  before", "after  ", "été 東京 🦙\n\ttab"):
        assert read.encode(text) == model.encode(text)
        assert read.decode(read.encode(text)) == text


def test_bytes_written_as_characters_are_read(tok512: Tokenizer, tmp_path: Path) -> None:
    """llama2.c's first exporter wrote byte 0x80 as the character U+0080."""
    entries = [(p.text, p.score) for p in tok512.pieces]
    texts = ["<unk>", "\n<s>\n", "\n</s>\n", *map(chr, range(256)), *(t.replace("▁", " ") for t, _ in entries[259:])]
    encoded = [text.encode() for text in texts]
    content = struct.pack("<I", max(map(len, encoded)))
    for text, (_, score) in zip(encoded, entries, strict=True):
        content += struct.pack("<fI", score, len(text)) + text
    (tmp_path / "old.bin").write_bytes(content)
    assert read_tokenizer_bin(tmp_path / "old.bin").fingerprint == tok512.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x07", "has 1 bytes"),
        (struct.pack("<I", 0), "starts with the tokens none"),
        (struct.pack("<IfI", 7, 0.0, 2**31), "token 0 has length 2147483648 at byte 12, but 0 are left"),
        (struct.pack("<IfI", 1, 0.0, 2) + b"ab", "max_token_length is 1"),
        (struct.pack("<IfI", 9, 0.0, 1) + b"a", "max_token_length is 9, expected 1"),
        (struct.pack("<IfI", 1, 0.0, 1) + b"\xff", "token 0 at byte 12 is not valid UTF-8"),
        (struct.pack("<IfI", 1, 0.0, 1) + b"a\0\0", "ends inside token 1, at byte 13"),
    ],
)
def test_damage_names_the_token_and_the_byte(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        read_tokenizer_bin(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
