"""Tests that the ids of cached words equal the ids of the whole text, on stories and on adversarial strings."""

import io
import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer

from reference_data import STORIES_260K, TOKENIZERS, development_files, reduced_tokenizer
from tinyllm.corpus.storybook import write_stories
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_model
from tinyllm.tokenizer.word_cache import WordCache, cached_encoder, splits_at_spaces

PARTS = [
    "the",
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    " \n ",
    "0",
    "123",
    "3.14",
    "▁",
    "▁▁",
    "a▁b",
    "é",
    "😀",
    "👩‍👩‍👧",
    "你好世界",
]
PARTS += [
    "\x00",
    "\x07",
    "\u200b",
    "\ufeff",
    "<s>",
    "<0x41>",
    "don't",
    "x" * 60,
    ",",
    "!?",
    "Once",
    "upon",
    "ﬁ",
    "\u3000",
    "\xa0",
]
MODELS: dict[str, Callable[[], bytes]] = {
    "tok512": lambda: (STORIES_260K / "tok512.model").read_bytes(),
    **{name: partial(reduced_tokenizer, name) for name in TOKENIZERS},
    **{f"{name}-itself": path.read_bytes for name in TOKENIZERS for path in development_files(name)},
}


@pytest.fixture(scope="module")
def spaced() -> Tokenizer:
    """A tokenizer trained on runs of spaces, with pieces of several spaces and words after them."""
    draw = random.Random(5)
    lines = [
        (" " * draw.randint(1, 6)).join(draw.choices(["if", "else", "return", "while", "x", "="], k=9))
        for _ in range(300)
    ]
    return Tokenizer.from_bytes(train_model(lines, 300), "spaced.model")


def ids_in(content: bytes) -> list[int]:
    ids: list[int] = np.frombuffer(content, dtype=np.uint32).tolist()
    return ids


def adversarial(count: int) -> list[str]:
    draw = random.Random(11)
    return ["".join(draw.choices(PARTS, k=draw.randint(0, 12))) for _ in range(count)]


@pytest.mark.parametrize("name", MODELS)
def test_ids_agree_on_adversarial_strings_and_stories(name: str) -> None:
    tokenizer = Tokenizer.from_bytes(MODELS[name](), name)
    assert splits_at_spaces(tokenizer)
    cache = WordCache(tokenizer)
    for text in adversarial(5000):
        assert ids_in(cache.encode(text)) == tokenizer.encode(text), repr(text)
    for story in write_stories(1000, seed=1):
        assert ids_in(cache.encode(story)) == tokenizer.encode(story)


def test_ids_agree_with_pieces_of_several_spaces(spaced: Tokenizer) -> None:
    assert any(piece.text == "▁▁" for piece in spaced.pieces)
    assert splits_at_spaces(spaced)
    cache = WordCache(spaced)
    draw = random.Random(7)
    for text in adversarial(2000) + ["".join(draw.choices([" ", "if", "x", "="], k=20)) for _ in range(2000)]:
        assert ids_in(cache.encode(text)) == spaced.encode(text), repr(text)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet=st.sampled_from(" ▁ab\n1é😀"), max_size=30))
def test_ids_agree_on_any_text(text: str, spaced: Tokenizer) -> None:
    assert ids_in(WordCache(spaced).encode(text)) == spaced.encode(text)


def test_a_vocabulary_that_joins_words_is_not_cached() -> None:
    model = io.BytesIO()
    lines = ["of the people by the people for the people"] * 50 + ["in the end of the day"] * 50
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        split_by_whitespace=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    tokenizer = Tokenizer.from_bytes(model.getvalue(), "joined.model")
    assert not splits_at_spaces(tokenizer)
    text = "of the people in the end"
    by_word = [id for word in text.split() for id in tokenizer.encode(word)]
    assert by_word != tokenizer.encode(text), "otherwise this test shows nothing"
    assert ids_in(cached_encoder(tokenizer)(text)) == tokenizer.encode(text)


def test_the_cache_is_bounded(spaced: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.tokenizer.word_cache.MAX_WORDS", 50)
    cache = WordCache(spaced)
    for number in range(500):
        text = f"x{number} = {'y' * 100}{number}"
        assert ids_in(cache.encode(text)) == spaced.encode(text)
        assert len(cache) <= 50
