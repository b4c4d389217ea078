"""Tests that the text bytes counted from ids equal the bytes of the encoded texts."""

import io

import numpy as np
import pytest
from sentencepiece import SentencePieceTrainer

from tinyllm.shards.text_bytes import TextBytes
from tinyllm.tokenizer.codec import Tokenizer

TEXTS = [
    "The fox saw a red ball.",
    "  two spaces first",
    "",
    "é😀 first",
    "line\nline ",
    "\n",
    "x",
]


@pytest.fixture(params=[True, False], ids=["dummy space", "none"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """A tokenizer with and one without a space added by encoding."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["the fox saw a red ball", "two spaces first"] * 9),
        model_writer=model,
        model_type="bpe",
        vocab_size=290,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=request.param,
        minloglevel=2,
    )
    return Tokenizer.from_bytes(model.getvalue(), "test.model")


@pytest.mark.parametrize("text", TEXTS)
def test_one_document_has_the_bytes_of_its_text(tokenizer: Tokenizer, text: str) -> None:
    window = np.array([tokenizer.encode(text, bos=True, eos=True)])
    assert TextBytes(tokenizer).count_windows(window) == len(text.encode())


def test_windows_of_many_documents_have_the_bytes_of_all(tokenizer: Tokenizer) -> None:
    """Windows share the bytes of a document that spans them."""
    ids = [id for text in TEXTS * 3 for id in tokenizer.encode(text, bos=True)]
    counter, true_bytes = TextBytes(tokenizer), sum(len(text.encode()) for text in TEXTS * 3)
    assert counter.count_windows(np.array([ids])) == true_bytes
    for length in (1, 2, 5, 7):
        num_bytes = 0
        for start in range(0, len(ids) - 1, length):
            num_bytes += counter.count_windows(np.array([ids[start : start + length + 1]]))
        assert num_bytes == true_bytes
