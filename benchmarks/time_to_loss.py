"""Time to quality: the time until the recipe reaches the best validation loss of the original's settings.

    python benchmarks/time_to_loss.py [--steps 2000] [--part 0.225] [--text FILE] [--ablation] [--json FILE]

The first row has the original's settings: AdamW, peak 5e-4, warmup of 1,000 updates, 32 x 256 tokens an update. Its
best validation loss is the target of the other rows. Their schedules end after `--part` of its tokens. They are the
recipe (`storybook`), and with --ablation its changes one by one, and Muon.

Without --text the data are stories that no run sees twice, so the loss measures learning and not memory. A text is
repeated as often as the tokens of a row need, and a twentieth of its documents is held out.

The first row's curve is computed on the fast path too. Its time is its tokens divided by the rate of the plain eager
float32 step on this model. That step alternates with each row's updates, one at each evaluation, in the same process.
Kept memory helps it. Medians count on both sides, because other programs may stop the machine for seconds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from results import make_parser, write_result
from train_step import plain_step

from tinyllm import storage
from tinyllm.config import Config, ModelConfig
from tinyllm.config.layers import to_toml
from tinyllm.config.recipes import read_recipe
from tinyllm.corpus.storybook import write_stories
from tinyllm.model.transformer import Transformer
from tinyllm.shards.format import ShardSet
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.training import train_tokenizer
from tinyllm.training.builder import build_trainer
from tinyllm.training.reporter import TrainingReporter

Sections = dict[str, dict[str, Any]]
ORIGINAL: Sections = {
    "training": {"batch_size": 8, "accumulation_steps": 4},
    "schedule": {"peak": 5e-4, "floor": 0.0, "warmup_steps": 1000, "shape": "cosine"},
    "optimizer": {"name": "adamw"},
}

RECIPE_KEYS = (
    "schedule.peak",
    "schedule.floor",
    "schedule.warmup_steps",
    "schedule.shape",
    "schedule.decay_fraction",
    "training.batch_size",
    "training.accumulation_steps",
    "training.align_documents",
    "training.initialization",
    "optimizer.name",
)
MUON: Sections = {"optimizer": {"name": "muon"}, "schedule": {"peak": 8e-3}}


RECIPE = "all: the recipe"


def changes() -> dict[str, Sections]:
    """Row -> the settings in which it differs from the original."""
    return {
        "the original": {},
        "the original, planned for fewer tokens": {},
        "peak and warmup of the recipe": recipe_values("schedule.peak", "schedule.warmup_steps"),
        "warmup-stable-decay": recipe_values("schedule.shape", "schedule.floor", "schedule.decay_fraction"),
        "smaller batches": recipe_values("training.batch_size", "training.accumulation_steps"),
        "windows that begin with a document": recipe_values("training.align_documents"),
        "attention that copies": recipe_values("training.initialization"),
        "Muon, peak 8e-3": merge(recipe_values("schedule.warmup_steps"), MUON),
        RECIPE: recipe_values(*RECIPE_KEYS),
        "the recipe with Muon": merge(recipe_values(*RECIPE_KEYS), MUON),
    }


def recipe_values(*names: str) -> Sections:
    """The recipe's values of the settings called `section.key`."""
    recipe = read_recipe("storybook")
    pairs = (name.split(".") for name in names)
    return merge(*({section: {key: recipe[section][key]}} for section, key in pairs))


def merge(*parts: Sections) -> Sections:
    """The sections merged; later values win."""
    merged: Sections = {}
    for part in parts:
        for section, values in part.items():
            merged[section] = merged.get(section, {}) | values
    return merged


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        shards = make_shards(Path(folder), arguments.text, arguments.stories)
        budget = arguments.steps * 32 * 256
        records: list[dict[str, Any]] = []
        if arguments.target is not None:
            curve = [{"tokens": budget, "loss": arguments.target}]
            records.append({"what": "the original, from an earlier run", "curve": curve})
        for name, differing in changes().items():
            is_known = arguments.target is not None and name == "the original"
            if is_known or not (arguments.ablation or name in ("the original", RECIPE)):
                continue
            sections = merge({"model": read_recipe("storybook")["model"]}, ORIGINAL, differing)
            tokens = int(best_of(records[0]["curve"])["tokens"] * arguments.part) if records else budget
            curve, eager_rate = learn(Path(folder) / f"run-{len(records)}", shards, sections, tokens)
            records.append({"what": name, "curve": curve, "eager_float32_tokens_per_second": eager_rate})
            report(records)
    write_result(arguments.json, records)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="Updates of the original: 8,192 tokens each.")
    parser.add_argument("--stories", type=int, default=0, help="Of the storybook; 0 = enough for one pass.")
    parser.add_argument("--text", type=Path, help="Stories between <|endoftext|>; without it, the storybook's.")
    parser.add_argument("--ablation", action="store_true", help="A row for each change of the recipe, too.")
    parser.add_argument("--target", type=float, help="The original's loss after --steps, if known.")
    parser.add_argument("--part", type=float, default=0.225, help="Tokens of the other rows, as a part of the first's.")
    arguments = parser.parse_args()
    arguments.stories = arguments.stories or 1000 + arguments.steps * 32 * 256 // 120
    return arguments


def make_shards(folder: Path, text: Path | None, num_stories: int) -> Path:
    """Stories, a tokenizer of 2,048 tokens, and shards."""
    stories = (
        text.read_text(encoding="utf-8").split("<|endoftext|>") if text else list(write_stories(num_stories, seed=11))
    )
    corpus = folder / "stories.txt"
    corpus.write_text("<|endoftext|>".join(stories), encoding="utf-8")
    tokenizer = train_tokenizer(stories[:20_000], 2048, folder / "tokenizer")
    prepare([corpus], tokenizer, folder / "shards", validation_fraction=0.05 if text else 0.01)
    return folder / "shards"


class EagerStep(TrainingReporter):
    """The plain eager float32 update of 8 x 256 tokens, made and timed at each evaluation of a run."""

    def __init__(self, shape: dict[str, Any]) -> None:
        model = Transformer(ModelConfig(**shape)).train()
        tokens = torch.randint(shape["vocab_size"], (8, 257))
        targets = tokens[:, 1:].flatten()
        self._step = plain_step(model, lambda: F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), targets))
        self._step()
        self.rates: list[float] = []

    def evaluation(self, _record: dict[str, Any]) -> None:
        start = time.perf_counter()
        self._step()
        self.rates.append(8 * 256 / (time.perf_counter() - start))


def learn(run: Path, shards: Path, sections: Sections, num_tokens: int) -> tuple[list[dict[str, float]], float]:
    """Trains on `num_tokens`; returns losses with tokens and seconds (at the median rate), and the eager rate."""
    shard_set = ShardSet.open(shards)
    sections["model"]["vocab_size"] = shard_set.tokenizer.vocab_size
    training = sections["training"]
    num_steps = num_tokens // (training["batch_size"] * training["accumulation_steps"] * 256)
    sections["schedule"]["num_steps"] = num_steps
    sections["schedule"]["warmup_steps"] = min(sections["schedule"]["warmup_steps"], num_steps // 2)
    training |= {"sequence_length": 256, "eval_interval": max(1, num_steps // 40), "eval_batches": 20}
    config = Config.model_validate(sections)
    eager = EagerStep(sections["model"])
    build_trainer(config, shard_set, run, reporter=eager).train(resume=False, to_toml=to_toml)
    records = storage.read_json_lines(run / "metrics.jsonl")
    rate = statistics.median(record["tokens_per_second"] for record in records if "tokens_per_second" in record)
    tokens_per_update = training["batch_size"] * training["accumulation_steps"] * 256
    curve = []
    for record in records:
        if "validation_loss" in record:
            tokens = record["step"] * tokens_per_update
            curve.append({"tokens": tokens, "seconds": tokens / rate, "loss": record["validation_loss"]})
    return curve, statistics.median(eager.rates)


def best_of(curve: list[dict[str, float]]) -> dict[str, float]:
    """The point with the lowest validation loss."""
    return min(curve, key=lambda point: point["loss"])


def report(records: list[dict[str, Any]]) -> None:
    """Prints the newest row: its best loss, and the time at which it reached the first row's."""
    original, newest = best_of(records[0]["curve"]), records[-1]["curve"]
    target, best = original["loss"], best_of(newest)
    passed = next((point for point in newest if point["loss"] <= target), None)
    line = f"{records[-1]['what']:40} loss {best['loss']:.4f}"
    if passed is None:
        print(f"{line} after {best['tokens'] / 1e6:.2f} M tokens; {target:.4f} not reached", flush=True)
        return
    original_seconds = original["tokens"] / records[-1]["eager_float32_tokens_per_second"]
    seconds = original_seconds if len(records) == 1 else passed["seconds"]
    fewer, less = original["tokens"] / passed["tokens"], original_seconds / seconds
    print(
        f"{line}  {target:.4f} after {passed['tokens'] / 1e6:.2f} M tokens ({fewer:.1f} x fewer), "
        f"{seconds / 60:.1f} minutes ({less:.1f} x less)",
        flush=True,
    )


if __name__ == "__main__":
    main()
