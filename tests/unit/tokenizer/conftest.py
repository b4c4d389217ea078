"""Fixtures: a tokenizer trained on generated lines, without real data."""

import random

import pytest

from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_model


def random_lines(num_lines: int, seed: int = 0) -> list[str]:
    """Lines of random words, digits, spaces, and characters of 1 to 4 bytes."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(1, 6))) for _ in range(60)]
    words += ["12", "é", "你好", "😀", "a  b", "x\ty", "--", "▁"]
    return [" ".join(draw.choices(words, k=12)) for _ in range(num_lines)]


@pytest.fixture(scope="session")
def lines() -> list[str]:
    return random_lines(200)


@pytest.fixture(scope="session")
def tokenizer(lines: list[str]) -> Tokenizer:
    return Tokenizer.from_bytes(train_model(lines, 400), "test.model")
