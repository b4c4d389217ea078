"""The CPU engine on a trained model: llama2.c's text to the letter, the cost of int8, modules that are not loaded."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reference_data import STORIES_260K, greedy_text
from tinyllm.config import WeightsKind
from tinyllm.corpus.storybook import write_stories
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.generation.generator import Generator
from tinyllm.loading import load

NUM_STORIES = 12
LARGEST_COST = {"bf16": 0.001, "int8": 0.005}
"""Largest relative increase of the validation loss."""


def load_stories(weights: WeightsKind) -> Generator:
    model, tokenizer = STORIES_260K / "stories260K.bin", STORIES_260K / "tok512.model"
    return load(model, tokenizer=tokenizer, device="cpu", weights=weights)


def test_greedy_text_is_that_of_llama2c() -> None:
    """`run stories260K.bin -t 0.0 -n 200`: 199 tokens after BOS."""
    generator = load_stories("fp32")
    assert isinstance(generator.engine, CpuEngine)
    text = generator.generate("", temperature=0, max_new_tokens=200)[0].text
    expected = greedy_text()
    assert text.startswith(expected)
    assert len(generator.tokenizer.encode(text[len(expected) :])) <= 2


def mean_loss(generator: Generator, texts: list[str]) -> float:
    """Cross-entropy a token, each text fed token by token after BOS."""
    losses = []
    for text in texts:
        ids = generator.tokenizer.encode(text, bos=True)[: generator.engine.context_length]
        slots = generator.engine.open(1)
        logits = generator.engine.read(slots, np.array([ids[:1]]))[0]
        for token in ids[1:]:
            top = logits.max()
            losses.append(float(top + np.log(np.exp(logits - top).sum()) - logits[token]))
            logits = generator.engine.read(slots, np.array([[token]]))[0]
        generator.engine.close(slots)
    return float(np.mean(losses))


@pytest.mark.parametrize("weights", LARGEST_COST)
def test_small_weights_cost_little(weights: WeightsKind) -> None:
    texts = list(write_stories(NUM_STORIES, seed=1))
    exact, rounded = (mean_loss(load_stories(kind), texts) for kind in ("fp32", weights))
    assert 2 < exact < 2.5  # 6.2 is the loss of chance
    assert abs(rounded / exact - 1) < LARGEST_COST[weights]


def test_neither_torch_nor_numba_is_loaded_once_the_code_is_cached(user_cache: Path) -> None:
    load_stories("fp32")
    model, tokenizer = (str(STORIES_260K / name) for name in ("stories260K.bin", "tok512.model"))
    program = f"""
import pathlib, sys, tinyllm.generation.engines.cpu_building, tinyllm.loading
tinyllm.generation.engines.cpu_building.cache_folder = lambda: pathlib.Path({str(user_cache)!r})
generator = tinyllm.loading.load({model!r}, tokenizer={tokenizer!r}, device="cpu")
print(generator.generate("Once", temperature=0, max_new_tokens=3)[0].text)
print({{"torch", "numba"}} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == " upon a time\nset()\n"
