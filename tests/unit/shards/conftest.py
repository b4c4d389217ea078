"""Fixtures: a small corpus of generated stories, its tokenizer, and a function that prepares it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyllm.shards.format import ShardSet
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_model


def _story(number: int) -> str:
    draw = random.Random(number)
    words = draw.choices(["cat", "dog", "é", "sat", "ran", "mat", "the", "😀", "far  away"], k=draw.randint(5, 60))
    return f"Story {number}. " + " ".join(words) + "\nThe end."


@pytest.fixture(scope="session")
def stories() -> list[str]:
    return [_story(number) for number in range(300)]


@pytest.fixture(scope="session")
def tokenizer(stories: list[str]) -> Tokenizer:
    return Tokenizer.from_bytes(train_model(stories, 300), "test.model")


@pytest.fixture
def corpus(stories: list[str], tmp_path: Path) -> Path:
    """A folder with two files of stories between <|endoftext|>."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, part in (("a.txt", stories[:200]), ("b.txt", stories[200:])):
        text = "\n<|endoftext|>\n".join(f"  {story}\n" for story in part)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def run(corpus: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ShardSet]:
    """Prepares the corpus in small batches and small shards, by default in one process."""
    monkeypatch.setattr("tinyllm.shards.encoding.BATCH_CHARACTERS", 500)
    monkeypatch.setattr("tinyllm.shards.recipe.PROCESS_BYTES", 1000)

    def run_prepare(name: str = "shards", **options: Any) -> ShardSet:
        options = {"num_workers": 1, "shard_tokens": 2000, "validation_fraction": 0.1, **options}
        return prepare([options.pop("inputs", corpus)], tokenizer, tmp_path / name, **options)

    return run_prepare
