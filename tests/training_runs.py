"""Tiny training runs for tests that start, stop and compare them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyllm import storage
from tinyllm.config import Config
from tinyllm.shards.format import ShardSet
from tinyllm.training.builder import build_trainer
from tinyllm.training.loop import Trainer
from tinyllm.training.outcome import Outcome
from tinyllm.training.reporter import TrainingReporter

MODEL = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "context_length": 16}
TRAINING = {
    "batch_size": 2,
    "accumulation_steps": 2,
    "sequence_length": 16,
    "eval_interval": 4,
    "eval_batches": 2,
    "checkpoint_interval": 3,
    "num_threads": 1,
    "device": "cpu",
    # Fixed, so that every machine runs the same test; test_path.py tests the choice of `auto`.
    "dtype": "float32",
    "attention": "fused",
    "compile": "off",
}

SMALL_RUN: dict[str, Any] = {
    "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "context_length": 32},
    "training": {
        "batch_size": 4,
        "accumulation_steps": 1,
        "sequence_length": 32,
        "eval_batches": 1,
        "eval_interval": 4,
        "checkpoint_interval": 2,
        "dtype": "float32",
        "attention": "fused",
        "compile": "off",
    },
    "sample": {"num_samples": 0},
}
"""Arguments of `tinyllm.train` for a run with a checkpoint every two updates, the same on every machine."""


class Listener(TrainingReporter):
    """Records all events and calls `at_step` after each update."""

    def __init__(self, at_step: Any = None) -> None:
        self.notes: list[str] = []
        self.records: list[dict[str, Any]] = []
        self.events: list[tuple[str, Any]] = []
        """Starts and samples."""
        self.at_step = at_step

    def note(self, message: str) -> None:
        self.notes.append(message)

    def started(self, step: int, best_loss: float | None) -> None:
        self.events.append(("started", (step, best_loss)))

    def samples(self, step: int, prompt: str, texts: Sequence[str]) -> None:
        self.events.append(("samples", (step, prompt, list(texts))))

    def step(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        if self.at_step is not None:
            self.at_step(record["step"])

    def evaluation(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def model_saved(self, path: Path) -> None:
        self.notes.append(f"saved {path.name}")


def make_config(shards: Path, num_steps: int = 10, **sections: dict[str, Any]) -> Config:
    """A config of the tiny model; `sections` override it."""
    vocab_size = ShardSet.open(shards).tokenizer.vocab_size
    return Config.model_validate(
        {
            "model": {"vocab_size": vocab_size, **MODEL, **sections.get("model", {})},
            "training": {**TRAINING, **sections.get("training", {})},
            "schedule": {"num_steps": num_steps, "peak": 1e-2, "warmup_steps": 2, **sections.get("schedule", {})},
            "optimizer": sections.get("optimizer", {}),
        }
    )


def train(
    shards: Path, run: Path, config: Config, *, resume: bool = False, listener: Listener | None = None
) -> tuple[Outcome, Trainer]:
    """Trains to the end; returns the outcome, and the trainer with the final weights."""
    trainer = build_trainer(config, ShardSet.open(shards), run, reporter=listener or Listener())
    return trainer.train(resume=resume, to_toml=lambda config: ""), trainer


def losses(run: Path) -> dict[int, float]:
    """Step -> loss, from metrics.jsonl."""
    return {r["step"]: r["loss"] for r in storage.read_json_lines(run / "metrics.jsonl") if "loss" in r}
