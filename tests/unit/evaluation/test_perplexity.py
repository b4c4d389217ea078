"""Bits per byte of texts, and the validation documents that they are measured on."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm.errors import InputError
from tinyllm.evaluation.likelihood import Request, Scorer
from tinyllm.evaluation.perplexity import TextFigures, measure_texts, read_validation_texts
from tinyllm.loading import load_with_torch
from tinyllm.shards.arrays import as_arrays
from tinyllm.shards.format import ShardSet


def test_documents_are_scored_together(make_model_dir: Callable[..., Path]) -> None:
    scorer = Scorer(load_with_torch(make_model_dir(), device="cpu"))
    texts = ["Once upon a time the fox.", "A red ball! Zoë"]
    scores = scorer.score([Request("", text) for text in texts])
    nats = -sum(score.log_probability for score in scores)
    figures = measure_texts(scorer, texts)
    assert (figures.num_documents, figures.num_bytes) == (2, len("".join(texts).encode()))
    assert figures.bits_per_byte == pytest.approx(nats / math.log(2) / figures.num_bytes)
    assert figures.perplexity == pytest.approx(math.exp(nats / figures.num_tokens))
    assert TextFigures(1, 1, 1, 1e4, 1e4).perplexity == math.inf


def test_validation_documents_are_whole(tiny_shards: Path) -> None:
    shards = ShardSet.open(tiny_shards)
    texts = read_validation_texts(shards)
    assert len(texts) == shards.validation_counts.documents
    assert sum(len(text.encode()) for text in texts) == shards.validation_counts.text_bytes
    assert all(text.startswith("Once upon a time the ") and text.endswith(" ball.") for text in texts)


def test_a_limit_takes_evenly_spaced_documents(tiny_shards: Path) -> None:
    shards = ShardSet.open(tiny_shards)
    texts = read_validation_texts(shards)
    some = read_validation_texts(shards, max_bytes=shards.validation_counts.text_bytes // 3)
    assert 0 < len(some) <= len(texts) // 3
    assert texts.index(some[-1]) >= len(texts) // 2
    assert read_validation_texts(shards, max_bytes=10**9) == texts


def test_shards_without_validation_text_are_refused(tiny_shards: Path) -> None:
    with pytest.raises(InputError, match="has no validation text"):
        read_validation_texts(dataclasses.replace(ShardSet.open(tiny_shards), validation=as_arrays([])))
