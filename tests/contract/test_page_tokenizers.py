"""The tokenizers of a page give our ids and texts for odd texts: both kinds, with every rule of spaces; run by Node."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from byte_level import odd_texts, save_byte_level
from page_engine import ask_each, make_page, needs_node
from random_models import random_model
from reference_data import STORIES_260K, TOKENIZERS, read_vectors, reduced_tokenizer
from tinyllm.config import ModelConfig
from tinyllm.corpus.storybook import write_stories
from tinyllm.tokenizer.byte_level import ByteLevelTokenizer
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import Piece, PieceType, Spacing
from tinyllm.tokenizer.proto_writer import write_model_proto
from tinyllm.tokenizer.training import train_model

pytestmark = needs_node
LETTERS = [*"ab 1290\t\n▁<s>/unk0x41.é😀你", "  ", "the ", "Once", "<s>", "</s>", "<unk>", "<0x0A>", "<user>", "ab"]


def page_of(tokenizer: Tokenizer, folder: Path) -> Path:
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=4, num_layers=1, num_heads=1, context_length=8)
    return make_page(random_model(config, tokenizer, 0.1), folder)


def texts_of_parts(count: int) -> list[str]:
    draw = random.Random(9)
    return odd_texts(count) + ["".join(draw.choices(LETTERS, k=draw.randrange(30))) for _ in range(count)]


def assert_equal(tokenizer: Tokenizer, texts: list[str], folder: Path) -> None:
    """Equal ids, and equal pieces of a stream for these ids and for random ones.

    With byte-level BPE the joined pieces count: TextDecoder may report a broken byte one piece earlier than Python.
    """
    page = page_of(tokenizer, folder)
    ids = [tokenizer.encode(text) for text in texts]
    for text, ours, theirs in zip(texts, ids, ask_each(page, "encode", "text", texts), strict=True):
        assert theirs == ours, text
    draw = random.Random(3)
    streams = ids[:300] + [draw.choices(range(tokenizer.vocab_size), k=draw.randrange(40)) for _ in range(300)]
    for numbers, pieces in zip(streams, ask_each(page, "decode", "ids", streams), strict=True):
        stream = tokenizer.stream()
        expected = [*map(stream.push, numbers), stream.finish()]
        assert "".join(pieces) == "".join(expected)
        assert pieces == expected or isinstance(tokenizer, ByteLevelTokenizer)


@pytest.mark.parametrize("name", ["fresh", "tok512", *TOKENIZERS])
def test_sentencepiece_ids_are_ours(name: str, tmp_path: Path) -> None:
    if name == "fresh":
        lines = [*write_stories(100, seed=2), "你好，世界", "😀 été  naïve"]
        tokenizer = Tokenizer.from_bytes(train_model(lines, 700), "fresh.model")
    elif name == "tok512":
        tokenizer = Tokenizer.load(STORIES_260K / "tok512.model")
    else:
        tokenizer = Tokenizer.from_bytes(reduced_tokenizer(name), name)
    vectors = [vector.text for each in TOKENIZERS for vector in read_vectors(each)]
    assert_equal(tokenizer, [*vectors, *texts_of_parts(600), *write_stories(30, seed=5)], tmp_path)


def test_vocabularies_of_few_letters(tmp_path: Path) -> None:
    """Many pieces with several cuts, so a wrong order of merges changes ids."""
    draw = random.Random(0)
    for alphabet in ("ab", "a ", "abc", "ab "):
        lines = ["a" + "".join(draw.choices(alphabet, k=draw.randint(1, 30))) for _ in range(30)]
        tokenizer = Tokenizer.from_bytes(train_model(lines, 268), "few.model")
        assert_equal(tokenizer, ["".join(draw.choices(alphabet, k=draw.randint(1, 40))) for _ in range(150)], tmp_path)


SPACES: list[dict[str, Any]] = [
    {"spacing": spacing, "add_dummy_prefix": prefix, "remove_extra_whitespaces": removes}
    for spacing in Spacing
    for prefix, removes in ((True, False), (False, False), (True, True))
]


@pytest.mark.parametrize("rules", SPACES, ids=lambda rules: "-".join(map(str, rules.values())))
@pytest.mark.parametrize("has_bytes", [True, False], ids=["bytes", "unknown"])
def test_every_rule_of_spaces(rules: dict[str, Any], has_bytes: bool, tmp_path: Path) -> None:
    """With user-defined pieces, with and without bytes for unknown characters."""
    words = ["a", "b", "▁", "ab", "▁a", "▁ab", "▁▁", "▁the", "t", "h", "e", "th", "1", "12", "é", "<", ">", "s", "<s"]
    pieces = [Piece("<unk>", 0, PieceType.UNKNOWN), Piece("<s>", 0, PieceType.CONTROL)]
    pieces += [Piece("</s>", 0, PieceType.CONTROL), Piece("<user>", 0, PieceType.USER_DEFINED)]
    pieces += [Piece(text, 0, PieceType.USER_DEFINED) for text in ("<us", "0x", "▁▁▁")]
    pieces += [Piece(f"<0x{byte:02X}>", 0, PieceType.BYTE) for byte in range(256) if has_bytes]
    pieces += [Piece(text, -float(rank), PieceType.NORMAL) for rank, text in enumerate(words)]
    proto = write_model_proto(pieces, unk_id=0, bos_id=1, eos_id=2, unk_surface=" ?? ", **rules)
    assert_equal(Tokenizer.from_bytes(proto, "rules.model"), texts_of_parts(250), tmp_path)


@pytest.mark.parametrize("kind", ["gpt2", "smollm", "llama3"])
def test_byte_level_ids_are_ours(kind: str, tmp_path: Path) -> None:
    tokenizer = ByteLevelTokenizer.load(save_byte_level(kind, tmp_path / kind))
    signs = [
        "'S 'LL 'ſ",
        "a\u0085b\ufeff c",
        "x\u2028\n\n y",
        "１２３४ ²½Ⅷ 12345",
        "don't I'LL we'Re",
        "  \n  a \r\n",
        "<|im_start|>x",
    ]
    assert_equal(tokenizer, [*signs, *texts_of_parts(700), *write_stories(20, seed=5)], tmp_path)


def test_added_tokens_of_byte_level_are_cut_out(tmp_path: Path) -> None:
    save_byte_level("gpt2", tmp_path / "source")
    path = tmp_path / "source" / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    first = len(content["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "special": False}
    for place, (text, normalized) in enumerate([("<user>", False), ("<us", True), ("the fox", True), ("你好", False)]):
        content["added_tokens"].append({"id": first + place, "content": text, "normalized": normalized, **flags})
    path.write_text(json.dumps(content), encoding="utf-8")
    texts = ["a <user> b<us er>", "the fox<user>the fo", "<|endoftext|><user>你好<us", "<<user>>"]
    assert_equal(ByteLevelTokenizer.load(tmp_path / "source"), [*texts, *texts_of_parts(200)], tmp_path)
