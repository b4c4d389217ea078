"""Ids in `tokenizer.json` are SentencePiece's on every text: through `tokenizers` and through transformers."""

import hashlib
import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer as HuggingFaceTokenizer

from reference_data import (
    STORIES_260K,
    TOKENIZERS,
    development_files,
    fingerprint,
    read_vectors,
    reduced_tokenizer,
)
from tinyllm.corpus.storybook import write_stories
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.files import hugging_face_files, tokenizer_json
from tinyllm.tokenizer.training import train_model, train_tokenizer

ODD_TEXTS = [
    *("", " ", "   ", " a", "a ", "  a  b   c  ", "\t\ta\tb", "\n\n a\n b \n", " \n ", "a\r\nb", "\x00\x01\x7f"),
    *("1234567890 12,345.67", "▁", "▁▁", "a▁b", "▁a ▁ b▁ ", "\u00a0 \u3000 x", "\ufeff", "\ufffd", "▅", "\u2028x"),
    *("<s>", "</s>", "<unk>", "<0x41>", "a <s> b</s><s>", "<s> <s>", " <s>", "<pad>", "<|endoftext|>"),
    *("😀👨‍👩‍👧 ok", "你好，世界 hello", "e\u0301 é", "-----", "aaaaaaaaaa", "hahahahaha", "=====-=-=-="),
]
FRAGMENTS = [*"ab 1290\t\n▁<s>/unk0x41.é😀你\x00", "  ", "the ", "Once", "<s>", "</s>", "<unk>", "<0x0A>"]


def odd_texts(num_texts: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return ODD_TEXTS + ["".join(draw.choices(FRAGMENTS, k=draw.randrange(30))) for _ in range(num_texts)]


def fresh_model() -> bytes:
    """A model that tinyllm trained, with spaces, digits, emoji and Chinese in its pieces."""
    draw = random.Random(5)
    words = ["".join(draw.choices("aabbcde", k=draw.randint(1, 6))) for _ in range(80)] + [
        "  ",
        "你好",
        "😀",
        "--",
        "x\t",
    ]
    return train_model([" ".join(draw.choices(words, k=15)) for _ in range(300)], 460)


FRESH = Tokenizer.from_bytes(fresh_model(), "fresh.model")
FRESH_JSON = HuggingFaceTokenizer.from_str(tokenizer_json(FRESH).decode())
DOCUMENTS = sorted((Path(__file__).parent.parent.parent / "docs").glob("*.md"))


@pytest.fixture(scope="module", params=["fresh", "tok512", *TOKENIZERS])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    match request.param:
        case "fresh":
            return FRESH
        case "tok512":
            return Tokenizer.load(STORIES_260K / "tok512.model")
        case name:
            return Tokenizer.from_bytes(reduced_tokenizer(name), name)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_those_of_the_real_tokenizer(name: str) -> None:
    """Through our codec and through `tokenizer.json`, on texts of many scripts, spaces and signs."""
    tokenizer = Tokenizer.from_bytes(reduced_tokenizer(name), name)
    other = HuggingFaceTokenizer.from_str(tokenizer_json(tokenizer).decode())
    vectors = read_vectors(name)
    assert len(vectors) >= 80
    for vector in vectors:
        assert tokenizer.encode(vector.text) == vector.ids, vector.text
        assert tokenizer.encode(vector.text, bos=True, eos=True) == vector.with_bos_and_eos, vector.text
        assert other.encode(vector.text, add_special_tokens=False).ids == vector.ids, vector.text


def assert_equal(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Ids, BOS, and the text back, for each text."""
    processor = SentencePieceProcessor(model_proto=tokenizer.model_proto)
    other = HuggingFaceTokenizer.from_str(tokenizer_json(tokenizer).decode())
    for text in texts:
        ids = processor.encode(text)
        assert other.encode(text, add_special_tokens=False).ids == ids, text
        assert other.encode(text).ids == [processor.bos_id(), *ids]
        for skip_special_tokens in (True, False):
            decoded = other.decode([1, *ids, 2], skip_special_tokens=skip_special_tokens)
            assert decoded == processor.decode(ids), text


def test_odd_texts(tokenizer: Tokenizer) -> None:
    assert_equal(tokenizer, odd_texts(1500))


def test_stories_and_lines_of_documents(tokenizer: Tokenizer) -> None:
    lines = [line for path in DOCUMENTS for line in path.read_text(encoding="utf-8").split("\n")]
    assert len(lines) > 500
    assert_equal(tokenizer, [*lines, *write_stories(200, seed=5)])


@settings(max_examples=300)
@given(st.one_of(st.text(), st.text(alphabet="ab 1▁<s>/\n")))
def test_any_text(text: str) -> None:
    assert FRESH_JSON.encode(text, add_special_tokens=False).ids == FRESH.encode(text)


def test_repetitive_vocabularies() -> None:
    """Corpora of two letters give many pieces with several cuts, so a wrong order of merges changes ids."""
    draw = random.Random(0)
    for _ in range(20):
        alphabet = draw.choice(["ab", "a", "abc", "a ", "ab "])
        lines = ["a" + "".join(draw.choices(alphabet, k=draw.randint(1, 30))) for _ in range(30)]
        tokenizer = Tokenizer.from_bytes(train_model(lines, 268), "repetitive.model")
        texts = ["".join(draw.choices(alphabet + " ", k=draw.randint(1, 40))) for _ in range(100)]
        assert_equal(tokenizer, texts)


def load_with_transformers(tokenizer: Tokenizer, directory: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own, on import
        from transformers import AutoTokenizer

        for name, content in hugging_face_files(tokenizer, context_length=256).items():
            (directory / name).write_bytes(content)
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": tokenizer.vocab_size}
        (directory / "config.json").write_text(json.dumps(config))
        return AutoTokenizer.from_pretrained(directory)


def test_transformers_pads_with_a_trained_tokenizer(tmp_path: Path) -> None:
    """The directory of `tinyllm tokenizer train` has no model, so nothing but its own files names the padding."""
    train_tokenizer(list(write_stories(50, seed=1)), 400, tmp_path / "tokenizer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own, on import
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    ids = loaded(["Lily", "Lily had a red ball."], padding=True)["input_ids"]
    assert len(ids[0]) == len(ids[1])
    assert ids[0][-1] == loaded.eos_token_id


def test_transformers_loads_the_directory(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A literal `<s>` in a text stays text in transformers too: split_special_tokens is in the config."""
    loaded = load_with_transformers(tokenizer, tmp_path)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.unk_token_id) == (1, 2, 0)
    assert (len(loaded), loaded.model_max_length) == (tokenizer.vocab_size, 256)
    for text in odd_texts(300, seed=1):
        ids = tokenizer.encode(text)
        if ids:
            assert loaded(text).input_ids == [1, *ids], text
            assert loaded.decode([1, *ids], skip_special_tokens=True) == tokenizer.decode(ids), text


def test_hello_world_of_tok4096() -> None:
    tokenizer = Tokenizer.from_bytes(reduced_tokenizer("tok4096"), "tok4096")
    ids = tokenizer.encode("Hello, world!", bos=True, eos=True)
    assert ids == [1, 346, 2233, 4010, 1475, 4021, 2]
    assert tokenizer.decode(ids) == "Hello, world!"


REAL = [(name, path) for name in TOKENIZERS for path in development_files(name)]
if REAL:

    @pytest.mark.parametrize(("name", "path"), REAL, ids=[name for name, _ in REAL])
    def test_the_stored_ids_are_those_of_the_tokenizer_itself(name: str, path: Path) -> None:
        """Collected where the development setup keeps the tokenizers; a clone has their ids."""
        assert hashlib.sha256(path.read_bytes()).hexdigest() == fingerprint(name)
        real = SentencePieceProcessor(model_file=str(path))
        for vector in read_vectors(name):
            assert real.encode(vector.text) == vector.ids
            assert real.encode(vector.text, add_bos=True, add_eos=True) == vector.with_bos_and_eos
        assert_equal(Tokenizer.load(path), [*odd_texts(500, seed=2), *write_stories(50, seed=4)])
