"""`tinyllm fit` beside settings that a person would choose by hand, in the same training time.

    python benchmarks/fit_settings.py plan --text shakespeare=FILE ... --minutes 2   quiet machine: speeds and plans
    python benchmarks/fit_settings.py run                                            trains them; goes on after a stop
    python benchmarks/fit_settings.py table                                          a Markdown table

`plan` measures the time of an update of every setting, and turns the minutes into a number of updates. So `run` may
share the machine: its result, the bits per byte of the whole validation text, depends on the number of updates alone.
`benchmarks/fit_settings.jsonl` has a line for each run that is done.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from scaling_laws import Corpora, rule

import tinyllm
from tinyllm.config import Config
from tinyllm.config.layers import to_toml
from tinyllm.machine.device import pick_device
from tinyllm.model.size import num_parameters
from tinyllm.planning.plan import TRAINED_PART, Limits
from tinyllm.planning.reporter import FitReporter
from tinyllm.planning.stages import Corpus, Fitted, plan_run
from tinyllm.planning.survey import survey
from tinyllm.shards.format import ShardSet
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.training import train_tokenizer
from tinyllm.training.builder import build_trainer
from tinyllm.training.path import FastPath, choose_fast_path
from tinyllm.training.reporter import TrainingReporter
from tinyllm.training.trial import measure_update_seconds

FOLDER = Path("build/fit-settings")
PLANS, RESULTS = FOLDER / "plans.jsonl", Path(__file__).parent / "fit_settings.jsonl"
CONTEXT = 256
HAND_CHOSEN = {
    2: [
        (1024, 64, 4, "adamw", 3e-3, 8),
        (2048, 128, 5, "adamw", 3e-3, 4),
        (1024, 96, 4, "muon", 1.2e-2, 4),
        (2048, 128, 5, "muon", 8e-3, 4),
        (4096, 128, 4, "muon", 8e-3, 2),
        (2048, 192, 6, "muon", 8e-3, 2),
    ],
    8: [(2048, 128, 5, "adamw", 3e-3, 8), (2048, 192, 6, "muon", 8e-3, 4), (4096, 256, 7, "muon", 6e-3, 4)],
}
"""For the minutes of a run: vocabulary, width, layers, optimizer, peak of the learning rate, windows an update."""


def plan_runs(corpora: Corpora, name: str, minutes: float) -> list[dict[str, Any]]:
    """The run of `fit` and those of the settings chosen by hand, with updates for `minutes` on this machine."""
    corpora.read(name)
    fitted = plan_run(Corpus([corpora.files[name]], rule(name)), Limits(60 * minutes), None, FitReporter())
    runs = [record(name, minutes, "fit", fitted.config(), fitted.plan.vocabulary.character_coverage, fitted)]
    _, lines = survey(tinyllm_documents(corpora, name))
    for vocab_size, width, layers, optimizer, peak, batch_size in HAND_CHOSEN[8 if minutes > 4 else 2]:
        size, coverage = choose_vocabulary(lines, vocab_size)
        model: dict[str, Any] = {
            "vocab_size": size,
            "hidden_size": width,
            "num_layers": layers,
            "num_heads": width // 32,
        }
        training: dict[str, Any] = {"batch_size": batch_size, "accumulation_steps": 1, "sequence_length": CONTEXT}
        training |= {"align_documents": fitted.plan.aligned, "initialization": "mimetic"}
        schedule = {"peak": peak, "floor": 1e-5, "warmup_steps": 30, "shape": "wsd", "decay_fraction": 0.6}
        sections = {"model": model | {"context_length": CONTEXT}, "training": training, "schedule": schedule}
        config = timed(Config.model_validate(sections | {"optimizer": {"name": optimizer}}), 60 * minutes)
        label = f"{optimizer} {peak:g}, {batch_size} windows"
        runs.append(record(name, minutes, label, config, coverage, fitted))
    return runs


def choose_vocabulary(lines: Sequence[str], size: int) -> tuple[int, float]:
    """`size`, or the next one with room for 98 % of all characters, and the share of the characters that it covers.

    Characters get at most 85 % of the vocabulary, as of Chinese text; the others are encoded as bytes.
    """
    counts = Counter("".join(lines))
    while True:
        coverage = sum(count for _, count in counts.most_common(int(0.85 * size))) / counts.total()
        if coverage >= 0.98:
            return size, coverage
        size *= 2


def tinyllm_documents(corpora: Corpora, name: str) -> Any:
    """The documents of a corpus, as `fit` reads them."""
    from tinyllm.corpus.documents import read_documents

    return read_documents([corpora.files[name]], documents=rule(name))


@cache
def measure(sections: str) -> tuple[FastPath, float]:
    """The fastest computation of a config, given as JSON, and the seconds of an update."""
    config, device = Config.model_validate_json(sections), pick_device("auto")
    path = choose_fast_path(config, device, 1000)
    return path, measure_update_seconds(path.resolve(config), device, num_updates=40, limit_seconds=4.0)


def timed(config: Config, seconds: float) -> Config:
    """`config` with as many updates as this machine does in the trained part of `seconds`, and ten evaluations."""
    path, update_seconds = measure(config.model_dump_json())
    num_steps = int(seconds * TRAINED_PART / update_seconds)
    sections = config.model_dump()
    sections["schedule"]["num_steps"] = num_steps
    interval = max(1, num_steps // 10)
    batches = max(1, 16_000 // config.tokens_per_step)
    chosen: dict[str, Any] = {
        "dtype": path.dtype,
        "attention": path.attention,
        "compile": "on" if path.compiled else "off",
    }
    chosen |= {"eval_interval": interval, "checkpoint_interval": interval, "eval_batches": batches}
    sections["training"] |= chosen
    return Config.model_validate(sections)


def record(name: str, minutes: float, label: str, config: Config, coverage: float, fitted: Fitted) -> dict[str, Any]:
    """A run that is planned, as a line of `plans.jsonl`."""
    return {
        "corpus": name,
        "minutes": minutes,
        "settings": label,
        "vocab_size": config.model.vocab_size,
        "character_coverage": coverage,
        "validation_fraction": fitted.plan.validation_fraction,
        "parameters": num_parameters(config.model),
        "epochs": round(config.schedule.num_steps * config.tokens_per_step / fitted.plan.corpus_tokens, 2),
        "expected": round(fitted.plan.expected_bits_per_byte, 3) if label == "fit" else None,
        "config": config.model_dump(mode="json"),
    }


def train(corpora: Corpora, run: dict[str, Any]) -> float:
    """Trains a planned run; returns the bits per byte of its whole validation text."""
    sections, shards = run["config"], shards_of(corpora, run)
    sections["training"] |= {"num_threads": 1, "compile": "off"}  # the updates are the same, and share a machine better
    config = Config.model_validate(sections)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        build_trainer(config, shards, out, reporter=TrainingReporter()).train(resume=False, to_toml=to_toml)
        report = tinyllm.evaluate(out / "model", data=shards.path, pairs=False, num_samples=0, max_bytes=0)
        (figures,) = report.models[0].texts.values()
    return figures.bits_per_byte


def bytes_of(corpora: Corpora, run: dict[str, Any]) -> dict[str, Any]:
    """The columns that the laws need: bytes of the training text and of the trained text, and bits per byte by bz2."""
    counts, config = shards_of(corpora, run).train_counts, Config.model_validate(run["config"])
    tokens = config.schedule.num_steps * config.tokens_per_step
    return {
        "corpus_bytes": counts.text_bytes,
        "trained_bytes": round(tokens * counts.text_bytes / counts.tokens),
        "difficulty": round(corpora.difficulty(run["corpus"]), 4),
    }


def shards_of(corpora: Corpora, run: dict[str, Any]) -> ShardSet:
    """The shards for the vocabulary of `run`, made at first use."""
    folder = corpora.folder / f"{run['corpus']}-{run['vocab_size']}-{run['validation_fraction']:.3f}"
    if not (folder / "shards").exists():
        texts = corpora.read(run["corpus"])
        coverage = run["character_coverage"]
        tokenizer = train_tokenizer(texts, run["vocab_size"], folder / "tokenizer", character_coverage=coverage)
        documents, fraction = rule(run["corpus"]), run["validation_fraction"]
        source = corpora.files[run["corpus"]]
        prepare([source], tokenizer, folder / "shards", documents=documents, validation_fraction=fraction)
    return ShardSet.open(folder / "shards")


def table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: for each corpus and time, `fit` and the settings chosen by hand, best first."""
    lines = [
        "| corpus | minutes | settings | model | epochs | bits per byte |",
        "| --- | ---: | --- | --- | ---: | ---: |",
    ]
    for result in sorted(results, key=lambda r: (r["corpus"], r["minutes"], r["bits_per_byte"])):
        model = result["config"]["model"]
        shape = f"{result['parameters'] / 1e6:.2f} M: V {result['vocab_size']:,}, {model['hidden_size']} x "
        settings = "**fit**" if result["settings"] == "fit" else result["settings"]
        lines.append(
            f"| {result['corpus']} | {result['minutes']:g} | {settings} | {shape}{model['num_layers']} "
            f"| {result['epochs']} | {result['bits_per_byte']:.3f} |"
        )
    return "\n".join(lines)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def main() -> None:
    arguments = parse_arguments()
    FOLDER.mkdir(parents=True, exist_ok=True)
    corpora = Corpora(FOLDER, {name: Path(path) for name, path in (item.split("=", 1) for item in arguments.text)})
    if arguments.action == "plan":
        for minutes, name in product(arguments.minutes or [2], ["storybook", *corpora.files]):
            for run in plan_runs(corpora, name, minutes):
                with PLANS.open("a", encoding="utf-8") as log:
                    print(json.dumps(run), file=log)
                shown = {key: value for key, value in run.items() if key != "config"}
                print(shown, run["config"]["schedule"]["num_steps"], flush=True)
    elif arguments.action == "run":
        done = {
            tuple(result[key] for key in ("corpus", "minutes", "settings", "parameters"))
            for result in read_lines(RESULTS)
        }
        number, num_parts = map(int, arguments.part.split("/"))
        for run in read_lines(PLANS)[number::num_parts]:
            if tuple(run[key] for key in ("corpus", "minutes", "settings", "parameters")) in done:
                continue
            result = run | bytes_of(corpora, run) | {"bits_per_byte": round(train(corpora, run), 4)}
            with RESULTS.open("a", encoding="utf-8") as log:
                print(json.dumps(result), file=log)
            print(run["corpus"], run["minutes"], run["settings"], result["bits_per_byte"], flush=True)
    else:
        print(table(read_lines(RESULTS)))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["plan", "run", "table"])
    parser.add_argument("--text", action="append", default=[], help="NAME=FILE: a corpus beside the storybook.")
    parser.add_argument("--minutes", type=float, action="append", help="Time of a run, 2 or 8 for example.")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th run from the I-th on, to run N side by side.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
