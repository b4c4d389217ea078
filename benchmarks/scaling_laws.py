"""The series of small runs behind `tinyllm fit`, and the laws that are fitted to it.

    python benchmarks/scaling_laws.py run [--text NAME=FILE ...] [--minutes 60]     measures; goes on after a stop
    python benchmarks/scaling_laws.py fit                                           fits laws.json, writes the document

Each run trains one model with Muon on one thread. Its result is the validation loss in bits per byte, which does not
depend on the load of the machine. `benchmarks/scaling_laws.jsonl` has a line for each run that is done. The storybook
is always one of the corpora; further texts are the user's.
"""

import argparse
import bz2
import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from scaling_plot import draw_laws

from tinyllm import storage
from tinyllm.config import Config
from tinyllm.config.layers import to_toml
from tinyllm.corpus.documents import read_documents
from tinyllm.corpus.storybook import write_stories
from tinyllm.model.size import num_parameters
from tinyllm.planning.laws import Laws
from tinyllm.shards.format import ShardSet
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.training import train_tokenizer
from tinyllm.training.builder import build_trainer
from tinyllm.training.reporter import TrainingReporter

HERE = Path(__file__).parent
POINTS, SETTINGS = HERE / "scaling_laws.jsonl", HERE / "fit_settings.jsonl"
LAWS = HERE.parent / "src/tinyllm/planning/laws.json"
DOCUMENT, PLOT = HERE.parent / "docs/scaling-laws.md", HERE.parent / "docs/images/scaling-laws.svg"
LENGTH = 256
GENERATED = "<!-- written by benchmarks/scaling_laws.py fit -->"
MEANINGS = {
    "floor": "E of a corpus with one bit per byte after bz2",
    "floor_exponent": "power of the bits per byte after bz2 in E",
    "scale_exponent": "power of the bits per byte after bz2 in S",
    "parameters": "N0",
    "parameters_exponent": "a",
    "data_bytes": "D0",
    "data_exponent": "b",
    "epochs": "R*: repetitions of the text after which another one helps little",
    "peak": "learning rate of a million parameters",
    "peak_exponent": "power of the parameters by which it falls",
}


@dataclass(frozen=True)
class Run:
    """One run of the series."""

    corpus: str
    vocab_size: int
    width: int
    num_layers: int
    tokens: int
    batch_size: int = 2
    peak: float = 8e-3
    dropout: float = 0.0


def series(corpora: list[str]) -> Iterator[Run]:
    """The runs: sizes and lengths on every corpus, then rates, updates, vocabularies and dropout."""
    for corpus in corpora:
        sizes = [(4096, 64, 4), (4096, 96, 4), (4096, 128, 5)] if corpus == "tang" else SIZES
        for tokens in (500_000, 1_000_000, 2_000_000):
            for vocab_size, width, num_layers in sizes:
                yield Run(corpus, vocab_size, width, num_layers, tokens)
    for peak in (4e-3, 1.2e-2, 1.6e-2):
        for vocab_size, width, num_layers in SIZES[::2]:
            yield Run("storybook", vocab_size, width, num_layers, 500_000, peak=peak)
    for batch_size in (4, 8):
        yield Run("storybook", 2048, 128, 5, 500_000, batch_size)
        yield Run("storybook", 2048, 128, 5, 2_000_000, batch_size)
    for corpus in corpora[:2]:
        for vocab_size in (512, 2048, 4096):
            yield Run(corpus, vocab_size, 96, 4, 500_000)
    for corpus in corpora[1:]:
        yield Run(corpus, 4096 if corpus == "tang" else 1024, 128, 5, 2_000_000, dropout=0.1)


SIZES = [(1024, 64, 4), (1024, 96, 4), (2048, 128, 5), (2048, 192, 6)]
"""Vocabulary, width and layers."""


def measure(run: Run, shards: ShardSet, difficulty: float) -> dict[str, Any]:
    """Trains one run on one thread; returns its point."""
    num_steps = run.tokens // (run.batch_size * LENGTH)
    aligned = shards.train_counts.documents >= 20
    model = {
        "vocab_size": shards.tokenizer.vocab_size,
        "hidden_size": run.width,
        "num_layers": run.num_layers,
        "num_heads": run.width // 32,
        "context_length": LENGTH,
        "dropout": run.dropout,
    }
    training = {
        "batch_size": run.batch_size,
        "accumulation_steps": 1,
        "sequence_length": LENGTH,
        "align_documents": aligned,
        "initialization": "mimetic",
        "eval_interval": max(1, num_steps // 8),
        "eval_batches": max(1, 320 // run.batch_size),
        "checkpoint_interval": 10**6,
        "dtype": "bfloat16",
        "attention": "fused" if run.dropout else "explicit",
        "compile": "off",
        "device": "cpu",
        "num_threads": 1,
    }
    schedule: dict[str, Any] = {
        "num_steps": num_steps,
        "peak": run.peak,
        "floor": 1e-5,
        "warmup_steps": min(30, num_steps // 10),
    }
    schedule |= {"shape": "wsd", "decay_fraction": 0.6}
    config = Config.model_validate(
        {"model": model, "training": training, "schedule": schedule, "optimizer": {"name": "muon"}}
    )
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        build_trainer(config, shards, Path(folder) / "run", reporter=TrainingReporter()).train(
            resume=False, to_toml=to_toml
        )
        records = storage.read_json_lines(Path(folder) / "run" / "metrics.jsonl")
    counts = shards.train_counts
    return asdict(run) | {
        "parameters": num_parameters(config.model),
        "corpus_bytes": counts.text_bytes,
        "trained_bytes": round(run.tokens * counts.text_bytes / counts.tokens),
        "difficulty": round(difficulty, 4),
        "bits_per_byte": round(min(r["bits_per_byte"] for r in records if "bits_per_byte" in r), 5),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


class Corpora:
    """The corpora by name, with a tokenizer and shards for each vocabulary, made at first use."""

    def __init__(self, folder: Path, files: dict[str, Path]) -> None:
        self.folder, self.files = folder, files
        self.texts: dict[str, list[str]] = {}

    def shards(self, name: str, vocab_size: int) -> ShardSet:
        """The shards of the corpus `name`; a twentieth of them is for validation."""
        folder = self.folder / f"{name}-{vocab_size}"
        if not (folder / "shards").exists():
            texts = self.read(name)
            characters = len(set().union(*texts))
            coverage = 0.99 if 2 * characters > vocab_size else 1.0
            tokenizer = train_tokenizer(texts, vocab_size, folder / "tokenizer", character_coverage=coverage)
            prepare([self.files[name]], tokenizer, folder / "shards", documents=rule(name), validation_fraction=0.05)
        return ShardSet.open(folder / "shards")

    def difficulty(self, name: str) -> float:
        """Bits per byte of the first megabyte after bz2."""
        content = "\n".join(self.read(name)).encode()[:1_000_000]
        return 8 * len(bz2.compress(content)) / len(content)

    def read(self, name: str) -> list[str]:
        """The documents of the corpus `name`."""
        if name == "storybook" and name not in self.files:
            self.files[name] = self.folder / "storybook.jsonl"
            if not self.files[name].exists():
                stories = (json.dumps({"text": story}) for story in write_stories(20_000, seed=7))
                storage.write_file(self.files[name], "\n".join(stories))
        if name not in self.texts:
            self.texts[name] = [document.text for document in read_documents([self.files[name]], documents=rule(name))]
        return self.texts[name]


def rule(name: str) -> Any:
    """The end of a document: poems are separated by empty lines."""
    return "blank-line" if name == "tang" else "auto"


def fit_laws(points: list[dict[str, Any]], peaks: tuple[float, float]) -> tuple[Laws, float]:
    """The laws with the least mean squared relative error on `points`, and the root of that error.

    All constants but the power of S are positive, so their logarithms are fitted: Adam from several starts.
    """
    columns = ("parameters", "trained_bytes", "corpus_bytes", "difficulty", "bits_per_byte")
    parameters, trained, corpus, difficulty, measured = (
        torch.tensor([float(point[column]) for point in points], dtype=torch.float64) for column in columns
    )
    best: tuple[float, torch.Tensor] = (math.inf, torch.empty(0))
    for start in range(8):
        generator = torch.Generator().manual_seed(start)
        logs = torch.tensor([0.2, 2.3, 1.0, 1e5, 1.0, 8e5, 1.0, 2.0], dtype=torch.float64).log()
        logs = (logs + 0.5 * torch.randn(len(logs), generator=generator, dtype=torch.float64)).requires_grad_()
        optimizer = torch.optim.Adam([logs], lr=0.02)
        for _ in range(4000):
            floor, power, _, n0, a, d0, b, epochs = logs.exp()
            scale = difficulty ** logs[2]
            again = (trained / corpus - 1).clamp(min=0)
            fresh = torch.minimum(trained, corpus) * torch.where(
                again > 0, 1 + epochs * (1 - (-again / epochs).exp()), torch.ones_like(again)
            )
            law = floor * difficulty**power + scale * ((n0 / parameters) ** a + (d0 / fresh) ** b)
            error = (law.log() - measured.log()).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        if error.item() < best[0]:
            best = (error.item(), torch.cat((logs[:2].exp(), logs[2:3], logs[3:].exp())).detach())
    values = [float(f"{value:.4g}") for value in best[1].tolist()]
    names = [field.name for field in fields(Laws)]
    return Laws(**dict(zip(names, [*values, *peaks], strict=True))), best[0] ** 0.5


def fit_peak(points: list[dict[str, Any]]) -> tuple[float, float]:
    """The best learning rate at a million parameters, and the power by which it falls, from two sizes."""
    rates: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        if point["corpus"] == "storybook" and point["tokens"] == 500_000 and point["batch_size"] == 4:
            rates.setdefault(point["parameters"], []).append((point["bits_per_byte"], point["peak"]))
    best = {size: min(tried)[1] for size, tried in rates.items() if len(tried) > 2}
    small, large = min(best), max(best)
    power = max(0.0, math.log(best[small] / best[large]) / math.log(large / small)) if large > small else 0.0
    return float(f"{best[large] * (large / 1e6) ** power:.3g}"), float(f"{power:.3g}")


def main() -> None:
    arguments = parse_arguments()
    if arguments.action == "fit":
        write_laws()
        return
    files = dict(item.split("=", 1) for item in arguments.text)
    done = [json.loads(line) for line in POINTS.read_text().splitlines()] if POINTS.exists() else []
    finished = {json.dumps({key: point[key] for key in asdict(Run("", 0, 0, 0, 0))}) for point in done}
    end = time.monotonic() + 60 * arguments.minutes
    arguments.folder.mkdir(parents=True, exist_ok=True)
    corpora = Corpora(arguments.folder, {name: Path(path) for name, path in files.items()})
    for run in series(["storybook", *files]):
        if json.dumps(asdict(run)) in finished or time.monotonic() > end:
            continue
        shards = corpora.shards(run.corpus, run.vocab_size)
        point = measure(run, shards, corpora.difficulty(run.corpus))
        with POINTS.open("a", encoding="utf-8") as log:
            print(json.dumps(point), file=log)
        print(json.dumps(point), flush=True)


def write_laws() -> None:
    """Fits the laws to the best runs; writes laws.json, the document and its plot."""
    points = read_points(POINTS)
    others = settings_points()
    best = best_runs(points)
    laws, error = fit_laws(best + best_runs(others), fit_peak(points))
    record = {"laws": asdict(laws), "runs": len(points) + len(others), "error": round(error, 4)}
    LAWS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    PLOT.parent.mkdir(exist_ok=True)
    PLOT.write_text(draw_laws(best, laws), encoding="utf-8")
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(text[: text.index(GENERATED)] + tables(points, best, laws, error), encoding="utf-8")
    print(f"{len(points)} runs and {len(others)} of {SETTINGS.name}, error {error:.1%}: {laws}")


def read_points(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def settings_points() -> list[dict[str, Any]]:
    """The runs of `fit_settings.py`, which are longer, with the columns of `POINTS` that the laws need."""
    points = read_points(SETTINGS)
    for point in points:
        training, schedule = point["config"]["training"], point["config"]["schedule"]
        tokens = schedule["num_steps"] * training["batch_size"] * training["accumulation_steps"]
        point["tokens"] = tokens * training["sequence_length"]
    return points


def best_runs(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best run of each corpus, model and length: the laws are about well-chosen rates and updates."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for point in points:
        key = tuple(point[name] for name in ("corpus", "parameters", "tokens"))
        if key not in best or point["bits_per_byte"] < best[key]["bits_per_byte"]:
            best[key] = point
    return list(best.values())


def tables(points: list[dict[str, Any]], best: list[dict[str, Any]], laws: Laws, error: float) -> str:
    """The generated part of the document: the constants, and a row for each run."""
    lines = [
        GENERATED,
        "",
        f"{len(points)} runs. With those of the table above, the laws miss the best of each kind by {error:.1%} "
        "(root mean square).",
        "",
    ]
    lines += ["| constant | value | meaning |", "| --- | ---: | --- |"]
    for field in fields(Laws):
        lines.append(f"| `{field.name}` | {getattr(laws, field.name):g} | {MEANINGS[field.name]} |")
    lines += [
        "",
        "| corpus | parameters | vocabulary | trained MB | epochs | windows | rate | bits per byte | the law |",
    ]
    lines.append("| --- |" + " ---: |" * 8)
    for point in sorted(points, key=lambda p: (p["corpus"], p["parameters"], p["trained_bytes"], p["bits_per_byte"])):
        law = laws.bits_per_byte(
            point["parameters"], point["trained_bytes"], point["corpus_bytes"], point["difficulty"]
        )
        lines.append(
            f"| {point['corpus']} | {point['parameters']:,} | {point['vocab_size']:,} "
            f"| {point['trained_bytes'] / 1e6:.2f} | {point['trained_bytes'] / point['corpus_bytes']:.1f} "
            f"| {point['batch_size']} | {point['peak']:g} | {point['bits_per_byte']:.3f} "
            f"| {f'{law:.3f}' if point in best else ''} |"
        )
    return "\n".join([*lines, ""])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "fit"])
    parser.add_argument("--text", action="append", default=[], help="NAME=FILE: a further corpus.")
    parser.add_argument("--minutes", type=float, default=600, help="No run begins after this time.")
    parser.add_argument("--folder", type=Path, default=Path("build/scaling-laws"), help="For tokenizers and shards.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
