"""`tinyllm fit`: from texts to a model in one command; shows the plan with its reasons, and the result beside it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tinyllm import storage
from tinyllm.addresses import refuse_address
from tinyllm.cli.console import TEXT_OR_DASH, note, show
from tinyllm.cli.paths import quoted
from tinyllm.cli.texts import TextKey, read_text_key
from tinyllm.corpus.formats import SUPPORTED
from tinyllm.corpus.text import DocumentRule
from tinyllm.errors import UsageError
from tinyllm.machine import launcher

LONGEST_NUMBER = 30
"""Digits of a size; far more than any disk holds."""
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?)b?", re.IGNORECASE)
UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
NUM_SAMPLES, SAMPLED_TOKENS, TEMPERATURE = 3, 120, 0.8
DEFAULT_MINUTES, LEAST_MINUTES, MOST_MINUTES = 10.0, 0.1, 60_000.0


def fit(
    *texts: Annotated[str, TEXT_OR_DASH, Parameter(help=f"Files, folders, patterns; folders: {SUPPORTED}.")],
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="Run directory for everything that fit makes.")] = Path(
        "runs/mine"
    ),
    minutes: Annotated[float | None, Parameter(help="Time of the whole run; default 10.")] = None,
    hours: Annotated[float | None, Parameter(help="The same in hours.")] = None,
    max_parameters: Annotated[int | None, Parameter(help="Largest number of parameters.")] = None,
    max_file_size: Annotated[str | None, Parameter(help="Largest size of the model directory, such as 5MB.")] = None,
    tokenizer: Annotated[Path | None, Parameter(help="A tokenizer to use; default: one is trained.")] = None,
    documents: Annotated[
        DocumentRule, Parameter(help="End of a document in plain text; auto: <|endoftext|>, else the end of the file.")
    ] = "auto",
    text_key: TextKey = None,
    plan: Annotated[bool, Parameter(negative="", show_default=False, help="Print the plan and stop.")] = False,
) -> None:
    """Train a model that fits texts, a time and this machine.

    Looks at the texts, measures the machine, and chooses vocabulary, size, learning rate and number of updates. The
    rules come from a series of small runs (docs/scaling-laws.md). Shows the plan with a reason for each number, then
    tokenizes, prepares and trains. After a stop, the same command goes on.

    For example:

      tinyllm fit books/ --minutes 10
      tinyllm fit poems.txt --documents blank-line --hours 1 -o runs/poems
      tinyllm fit stories.jsonl --max-file-size 5MB --plan
    """
    from tinyllm.cli.fit_display import FitDisplay
    from tinyllm.cli.train import run_training
    from tinyllm.exchange.tokenizer_source import load_tokenizer
    from tinyllm.planning import stages
    from tinyllm.planning.plan import Limits
    from tinyllm.planning.reasons import expectation, show_time

    refuse_ranks()
    refuse_address(out)
    corpus = stages.Corpus(texts, documents, read_text_key(text_key))
    file_bytes = None if max_file_size is None else read_size(max_file_size)
    limits = Limits(read_time(minutes, hours), max_parameters, file_bytes)
    own = load_tokenizer(tokenizer) if tokenizer is not None else None
    if plan:
        stages.plan_run(corpus, limits, own, FitDisplay())
        return
    out = storage.follow_link(out)
    fitted, shards = stages.begin(corpus, limits, own, out, FitDisplay())
    has_begun = stages.has_begun(out)
    if not has_begun:
        note(f"training for about {show_time(60 * fitted.plan.training_minutes)}")
    with stages.repeatable():
        outcome = run_training(fitted.config(), shards, out, resume=has_begun)
    if outcome.model is None:
        return
    show_samples(out / "model")
    result = outcome.model.bits_per_byte
    expected = expectation(fitted.plan, fitted.survey).replace(" bits per byte", "")
    print(f"bits per byte on held-out text: {result:.3f}; expected {expected}")
    print("Try next:")
    print(f'  tinyllm generate {quoted(out / "model")} "Your words"')
    print(f"  tinyllm info {quoted(out / 'model')}")
    if outcome.reason == "early" or fitted.plan.is_shortened:
        print("More text makes a better model; more time does not.")
    else:
        given = {
            "--documents": None if documents == "auto" else documents,
            "--text-key": text_key,
            "--tokenizer": tokenizer,
            "--max-parameters": max_parameters,
            "--max-file-size": max_file_size,
        }
        print(f"  {longer_call(texts, 2 * limits.seconds / 60, given, out)}")


def longer_call(texts: Sequence[str], minutes: float, given: Mapping[str, object], out: Path) -> str:
    """The command that fits the same texts for `minutes`, with the flags that were `given` a value."""
    files = " ".join(map(quoted, texts))
    flags = "".join(f" {name} {quoted(str(value))}" for name, value in given.items() if value is not None)
    return f"tinyllm fit {files} --minutes {minutes:g}{flags} -o {quoted(f'{out}-longer')}"


def refuse_ranks() -> None:
    """Raises UsageError if torchrun started several processes; the first one shows it."""
    launch = launcher.read_launch()
    if launch is None or launch.num_ranks == 1:
        return
    error = UsageError(
        f"fit plans and trains on one process, and torchrun started {launch.num_ranks}; run it without torchrun, or "
        "prepare shards and start `tinyllm train` with torchrun"
    )
    error.is_shown = launch.rank > 0
    raise error


def read_time(minutes: float | None, hours: float | None) -> float:
    """The seconds of `--minutes` or `--hours`. Raises UsageError for both, and for no time at all."""
    if minutes is not None and hours is not None:
        raise UsageError("--minutes and --hours are two ways to say the same; give one")
    value = minutes if minutes is not None else hours * 60 if hours is not None else DEFAULT_MINUTES
    name = "--hours" if hours is not None else "--minutes"
    if not LEAST_MINUTES <= value < MOST_MINUTES:
        shown = hours if hours is not None else minutes
        raise UsageError(f"{name} is {shown}; the time should be from {LEAST_MINUTES} minutes to 1,000 hours")
    return value * 60


def read_size(text: str) -> int:
    """The bytes of a size such as 5MB, 500k or 1.5 GB. Raises UsageError for any other text."""
    match = SIZE.fullmatch(text.strip())
    if match is None or len(match[1]) > LONGEST_NUMBER:
        raise UsageError(f"--max-file-size is {text[:60]!r}; it should be a size such as 5MB or 500KB")
    return int(float(match[1]) * UNITS[match[2].lower()])


def show_samples(model: Path) -> None:
    """Prints texts by the model in the directory `model`."""
    from tinyllm.loading import load

    generator = load(model)
    limit = min(SAMPLED_TOKENS, generator.config.context_length - 1)
    results = generator.generate("", num_samples=NUM_SAMPLES, temperature=TEMPERATURE, seed=1, max_new_tokens=limit)
    for result in results:
        show(f"\n{result.text.strip()}")
    print()
