"""llama.cpp and tinyllm apply the same rules to our GGUF files: ids, cut-out pieces, BOS, end tokens."""

from pathlib import Path
from typing import Any

import pytest

from random_models import random_model, save_gguf

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; the bench extra has it")

from tinyllm.config import ModelConfig  # noqa: E402
from tinyllm.exchange.gguf import read_gguf  # noqa: E402
from tinyllm.tokenizer.codec import Tokenizer  # noqa: E402
from tinyllm.tokenizer.model_proto import Piece, PieceType, Spacing  # noqa: E402
from tinyllm.tokenizer.resizing import filler, with_pieces  # noqa: E402
from tinyllm.tokenizer.training import train_model  # noqa: E402

TEXTS = ["the cat", "a<x>cat", "<x>cat <x>", "<x><x>", "a <|u|> cat", "<s>", "  two  cats"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """285 trained pieces, a user-defined one, a reserved one, and a row without a token."""
    trained = Tokenizer.from_bytes(train_model(["a cat sat on the mat, two cats"] * 3, 285), "test.model")
    added = [Piece("<x>", 0.0, PieceType.USER_DEFINED), Piece("<|u|>", 0.0, PieceType.CONTROL), filler(287)]
    return with_pieces(trained, [*trained.pieces, *added], spacing=Spacing.SECTIONS)


def save(path: Path, tokenizer: Tokenizer) -> tuple[Tokenizer, Any]:
    """Our and llama.cpp's reading of a GGUF file with `tokenizer`."""
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=1, num_heads=2)
    save_gguf(path, random_model(config, tokenizer))
    ours = read_gguf(path).tokenizer
    assert ours is not None
    return ours, llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)


def test_ids_are_theirs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours, theirs = save(tmp_path / "model.gguf", tokenizer)
    for text in TEXTS:
        for special in (False, True):
            expected = theirs.tokenize(text.encode(), add_bos=False, special=special)
            assert ours.encode(text, allow_special=special) == expected, (text, special)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_prompt_begins_as_theirs(adds_bos: bool, tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours, theirs = save(tmp_path / "model.gguf", tokenizer.with_rules(adds_bos=adds_bos))
    assert ours.encode("the cat", bos=ours.begins_with_bos) == theirs.tokenize(b"the cat", add_bos=True)


@pytest.mark.parametrize("ends", [{2}, {1, 2}, {2, 286}, {1, 2, 286}, {270}])
def test_a_text_ends_as_theirs(ends: set[int], tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours, theirs = save(tmp_path / "model.gguf", tokenizer.with_rules(end_ids=ends))
    vocab = llama_cpp.llama_model_get_vocab(theirs.model)
    found = {id for id in range(ours.vocab_size) if llama_cpp.llama_vocab_is_eog(vocab, id)}
    # llama.cpp ends a text at a piece with the name `</s>` (id 2), even if the file names other end tokens alone.
    assert found == ends | {2}
    assert ours.end_ids == ends
