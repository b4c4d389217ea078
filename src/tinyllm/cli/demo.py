"""`tinyllm demo`: from generated stories to a trained model and its samples in minutes, with a table of results."""

import math
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from tinyllm import storage
from tinyllm.addresses import refuse_address
from tinyllm.cli.console import note, show
from tinyllm.cli.data import storybook
from tinyllm.cli.paths import quoted
from tinyllm.cli.shards import prepare
from tinyllm.cli.tokenizer import train as train_tokenizer
from tinyllm.cli.train import run_training
from tinyllm.config import Config
from tinyllm.config.layers import config_for_shards
from tinyllm.errors import UsageError
from tinyllm.evaluation.stories import judge_stories, read_stories
from tinyllm.shards.format import ShardSet

NUM_STORIES = 20_000
VOCAB_SIZE = 2048
NUM_SAMPLES = 20
TEMPERATURE = 0.5
SEED = 7
MARKER = ".tinyllm-demo"
"""A file in the folder of a demo; it holds the SHA-256 of the corpus that the demo wrote."""
CORPUS = "stories.jsonl"


def demo(
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="Folder for everything the demo makes.")] = Path("demo"),
    stories: Annotated[int, Parameter(help="Stories to write and train on.")] = NUM_STORIES,
    steps: Annotated[int | None, Parameter(help="Optimizer updates; default: the recipe's number.")] = None,
    max_minutes: Annotated[float, Parameter(help="Largest training time; a slower machine does fewer updates.")] = 3.9,
) -> None:
    """Write stories, train a tokenizer and a model on them, and sample, in minutes.

    About five minutes on two cores. A second call starts from scratch in the same folder.

    For example:

      tinyllm demo
      tinyllm demo --stories 2000 --steps 100 -o small-demo
    """
    from tinyllm.training.time_limit import fit_to_time

    start = time.monotonic()
    demo_config(VOCAB_SIZE, steps)  # reports a wrong number of steps before anything is written
    if not 0 < max_minutes < math.inf:
        raise UsageError(f"--max-minutes is {max_minutes}; it should be greater than 0 and finite")
    refuse_address(out)
    out = storage.follow_link(out)
    clear(out)
    corpus, tokenizer, shards, run = (out / name for name in (CORPUS, "tokenizer", "shards", "run"))
    note(f"[1/5] writing {stories:,} stories to {corpus}")
    storybook(stories=stories, seed=SEED, output=corpus)
    storage.write_file(out / MARKER, storage.sha256_of(corpus))
    note(f"[2/5] training a tokenizer of {VOCAB_SIZE:,} tokens")
    train_tokenizer(str(corpus), vocab_size=VOCAB_SIZE, output=tokenizer)
    note("[3/5] turning stories into shards of token ids")
    prepare(str(corpus), tokenizer=tokenizer, output=shards)
    note("[4/5] training a model")
    shard_set = ShardSet.open(shards)
    planned = demo_config(shard_set.tokenizer.vocab_size, steps)
    config = fit_to_time(planned, max_minutes, note)
    if config.schedule.num_steps < planned.schedule.num_steps / 2:
        note("so few updates teach more if each has half the windows and there are twice as many")
        config = fit_to_time(with_small_updates(planned), max_minutes, note)
    outcome = run_training(config, shard_set, run, resume=False)
    note(f"[5/5] sampling {NUM_SAMPLES} stories at temperature {TEMPERATURE}")
    assert outcome.model is not None, "the last update is always evaluated"
    texts = sample_stories(run / "model")
    tally = judge_stories(texts, read_stories(corpus))
    show_stories(texts[:3])
    peak = outcome.peak_memory_bytes
    rows = {
        "stories": f"{stories:,}",
        "training tokens": f"{shard_set.train_counts.tokens:,} in the corpus, {outcome.num_tokens:,} seen",
        "parameters": f"{outcome.num_parameters:,}",
        "validation loss": f"{outcome.model.loss:.4f} nats per token, {outcome.model.bits_per_byte:.4f} bits per byte",
        "sampled stories": f"{NUM_SAMPLES}: the grammar accepts {tally.accepted}, {tally.new} of them new",
        "peak memory": f"{peak / 2**20:,.0f} MiB" if peak is not None else "not reported by this system",
        "loss curve": str(run / "loss.svg"),
        "time": f"{(time.monotonic() - start) / 60:.1f} minutes",
    }
    show_table(rows)
    print("Try next:")
    print(f'  tinyllm generate {quoted(run / "model")} "Once upon a time"')
    print(f"  tinyllm info {quoted(run / 'model')}")
    print("  tinyllm tokenizer train YOUR-TEXTS --vocab-size 2048 -o tokenizer")
    print(f"  tinyllm studio {quoted(out)}")


def clear(out: Path) -> None:
    """Removes the outputs of an earlier demo, and nothing else. Raises UsageError for a folder that no demo wrote."""
    from tinyllm.training.run_dir import clear_run

    if not out.exists() or not any(out.iterdir()):
        storage.write_file(out / MARKER, "")
        return
    if not (out / MARKER).is_file():
        raise UsageError(f"{out} is not empty and no demo wrote it; choose another folder with --out")
    if (out / CORPUS).is_file() and storage.sha256_of(out / CORPUS) != (out / MARKER).read_text(encoding="utf-8"):
        raise UsageError(f"{out / CORPUS} is not the file that a demo wrote; move it, or choose another --out")
    clear_run(out / "run")
    if (out / CORPUS).is_file():
        storage.disk.remove_file(out / CORPUS)
    for name, kind in (("tokenizer", "tokenizer"), ("shards", "shards")):
        if (out / name).exists() and not storage.remove_directory(out / name, kind):
            raise UsageError(f"{out / name} holds files that no demo wrote; move them, or choose another --out")


def demo_config(vocab_size: int, steps: int | None) -> Config:
    """The config of the storybook recipe, with `steps` updates if given."""
    flags = {"schedule": {"num_steps": steps} if steps is not None else {}}
    return config_for_shards(vocab_size, [("flags", flags)], recipe="storybook")


def with_small_updates(config: Config) -> Config:
    """`config` with half the windows in an update and twice the updates, so that a run sees the same tokens.

    In one run each, the grammar accepted four times as many stories after 4 million tokens, and fewer after 12 million
    (benchmarks/log/2026-11-22-time-to-loss.md).
    """
    training, schedule = config.training, config.schedule
    half = training.model_copy(update={"batch_size": max(1, training.batch_size // 2)})
    return config.model_copy(
        update={
            "training": half,
            "schedule": schedule.model_copy(
                update={"num_steps": schedule.num_steps * training.batch_size // half.batch_size}
            ),
        }
    )


def sample_stories(model: Path) -> list[str]:
    """Stories without a prompt: each begins after BOS and ends at an end token."""
    from tinyllm.loading import load_with_torch

    generator = load_with_torch(model)
    limit = generator.config.context_length - 1
    results = generator.generate("", num_samples=NUM_SAMPLES, temperature=TEMPERATURE, seed=SEED, max_new_tokens=limit)
    return [result.text.strip() for result in results]


def show_stories(texts: list[str]) -> None:
    """Prints `texts`."""
    for text in texts:
        show(f"\n{text}")
    print()


def show_table(rows: dict[str, str]) -> None:
    """Prints the results of the demo as a table of names and values."""
    table = Table(title="tinyllm demo", show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False).print(table)
