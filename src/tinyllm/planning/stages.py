"""The stages before training of `fit`: survey, plan, tokenizer, shards. Each is kept in OUT and not done twice.

OUT is the run directory, with three names more: plan.json, tokenizer/ and shards/.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tinyllm import storage
from tinyllm.addresses import is_address
from tinyllm.config import Config, ModelConfig
from tinyllm.corpus.documents import read_documents
from tinyllm.corpus.own_outputs import FIT_KIND, PLAN_NAME
from tinyllm.corpus.sources import STANDARD_INPUT, list_sources
from tinyllm.corpus.split import split_documents
from tinyllm.corpus.text import DocumentRule
from tinyllm.errors import FormatError, Interrupted, UsageError
from tinyllm.json_file import read_json_object
from tinyllm.machine.device import pick_device
from tinyllm.planning.laws import Laws, measured_laws
from tinyllm.planning.plan import LEAST_STEPS, TRAINED_PART, Limits, Plan, check_size, choose_plan
from tinyllm.planning.reasons import show_time
from tinyllm.planning.reporter import FitReporter
from tinyllm.planning.speed import measure_speed
from tinyllm.planning.survey import Survey, Vocabulary, survey, try_tokenizer, try_vocabularies
from tinyllm.progress import Reporter
from tinyllm.shards.format import ShardSet
from tinyllm.shards.recipe import fingerprint_of
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_tokenizer
from tinyllm.training.checkpoint import list_checkpoints
from tinyllm.training.path import choose_fast_path
from tinyllm.training.run_dir import check_run_directory
from tinyllm.training.trial import measure_update_seconds

TOKENIZER_NAME, SHARDS_NAME = "tokenizer", "shards"
MEASURED_PART = 0.03
"""Part of the time that may go to measuring the chosen update."""
MEASURED_UPDATES = 30


@dataclass(frozen=True)
class Corpus:
    """The texts, and how they are read."""

    inputs: Sequence[str | Path]
    documents: DocumentRule = "auto"
    text_key: str | None = None

    def fingerprint(self) -> str:
        """A digest that changes if a file changes. Raises UsageError for standard input, which is read only once."""
        sources = list_sources(self.inputs)
        if STANDARD_INPUT in sources:
            raise UsageError("fit reads its texts several times, and standard input can be read once; name a file")
        return fingerprint_of(sources)


@dataclass(frozen=True)
class Fitted:
    """A plan with the corpus that it is for."""

    plan: Plan
    survey: Survey
    training: dict[str, str]
    """Precision, attention and compilation: the fastest here for this plan."""

    def config(self) -> Config:
        """The config of the run."""
        return self.plan.config(**self.training)


def begin(
    corpus: Corpus, limits: Limits, tokenizer: Tokenizer | None, out: Path, reporter: FitReporter
) -> tuple[Fitted, ShardSet]:
    """The plan and the shards of the run in `out`: those of an earlier call that was stopped, or new ones.

    Raises InputError for texts that cannot be used, UsageError if the limits leave no model or `out` holds something
    else, FormatError for a damaged plan.
    """
    _check_apart(corpus, out)
    fitted = find_plan(out, corpus, limits, tokenizer)
    if fitted is None:
        check_run_directory(out)
        storage.check_writable(out / PLAN_NAME)
        fitted = plan_run(corpus, limits, tokenizer, reporter)
        keep_plan(out, fitted, corpus, limits, tokenizer)
    else:
        reporter.note(f"going on with the plan in {out / PLAN_NAME}")
        reporter.planned(fitted.plan, fitted.survey)
    return fitted, prepare_data(out, fitted, corpus, tokenizer, reporter)


@contextmanager
def repeatable() -> Iterator[None]:
    """Raises Interrupted of a run inside with the advice of `fit`, which has no `resume`: the same call goes on."""
    try:
        yield
    except Interrupted as error:
        raise Interrupted(error.message, error.exit_code - 128, hint="the same again goes on from there") from None


def _check_apart(corpus: Corpus, out: Path) -> None:
    """Raises UsageError if `out` is a folder of texts: a run is left out of a corpus, and the texts with it."""
    places = [Path(each).resolve() for each in corpus.inputs if not is_address(each)]
    if out.resolve() in places or out.resolve() in (place.parent for place in places if place.is_file()):
        raise UsageError(f"{out} holds the texts", hint="choose another `out` directory, such as one inside it")


def plan_run(corpus: Corpus, limits: Limits, tokenizer: Tokenizer | None, reporter: FitReporter) -> Fitted:
    """Surveys the corpus, measures the machine, and chooses the plan. Writes nothing.

    Raises InputError for a corpus that cannot be read, UsageError if the limits leave no model.
    """
    start, laws = time.monotonic(), measured_laws()
    corpus.fingerprint()
    reporter.note("looking at the texts")
    found = read_documents(corpus.inputs, documents=corpus.documents, text_key=corpus.text_key, note=reporter.note)
    facts, lines = survey(found)
    vocabularies = [try_tokenizer(lines, tokenizer)] if tokenizer else try_vocabularies(lines)
    check_size(facts, vocabularies[0])
    reporter.note("measuring this machine")
    plan = choose_plan(facts, vocabularies, measure_speed(), laws, limits)
    fitted = _measure_plan(plan, facts, laws, start, reporter)
    if fitted.plan.needs_dropout:
        # The machine is faster than the measured speed said. An update with dropout has a time of its own.
        fitted = _measure_plan(fitted.plan.with_dropout(), facts, laws, start, reporter)
    reporter.planned(fitted.plan, fitted.survey)
    return fitted


def _measure_plan(plan: Plan, facts: Survey, laws: Laws, start: float, reporter: Reporter) -> Fitted:
    """`plan` with the number of updates that fit into the time that is left, by real updates of its own shape."""
    config, device = plan.config(), pick_device("auto")
    path = choose_fast_path(config, device, plan.num_steps, reporter.note)
    limit = plan.seconds * MEASURED_PART
    seconds = measure_update_seconds(path.resolve(config), device, num_updates=MEASURED_UPDATES, limit_seconds=limit)
    left = plan.seconds - (time.monotonic() - start)
    num_steps = int(left * TRAINED_PART / seconds)
    if num_steps < LEAST_STEPS:
        used = plan.seconds - left
        reporter.note(
            f"the time is too short for a model: {show_time(used)} went to looking and measuring, and training takes "
            f"{show_time(LEAST_STEPS * seconds)} for {LEAST_STEPS} updates"
        )
    plan = replace(plan.with_steps(max(LEAST_STEPS, num_steps), facts, laws), update_seconds=seconds)
    compiled = "on" if path.compiled else "off"
    return Fitted(plan, facts, {"dtype": path.dtype, "attention": path.attention, "compile": compiled})


def find_plan(out: Path, corpus: Corpus, limits: Limits, tokenizer: Tokenizer | None) -> Fitted | None:
    """The plan that an earlier call for the same texts and limits left in `out`, or None.

    Raises UsageError if `out` holds a plan for others, FormatError if it cannot be read.
    """
    path = out / PLAN_NAME
    if not path.exists():
        return None
    record = read_json_object(path)
    if record.get("kind") != FIT_KIND:
        raise UsageError(f"{path} is not a plan of tinyllm", hint="choose another `out` directory, or move it")
    request = request_of(corpus, limits, tokenizer)
    if record.get("request") != request:
        before = record.get("request")
        changed = [key for key in request if not isinstance(before, dict) or before.get(key) != request[key]]
        raise UsageError(
            f"{out} holds a run that began with other {' and '.join(changed)}",
            hint="give the same again, or choose another `out` directory",
        )
    try:
        return _read_fitted(record)
    except (KeyError, TypeError, ValidationError) as error:
        raise FormatError(f"{path} is damaged ({type(error).__name__}); remove it to plan again") from None


def keep_plan(out: Path, fitted: Fitted, corpus: Corpus, limits: Limits, tokenizer: Tokenizer | None) -> None:
    """Writes the plan into `out`, for a call that goes on after a stop."""
    plan = asdict(fitted.plan) | {"model": fitted.plan.model.model_dump()}
    record = {
        "kind": FIT_KIND,
        "request": request_of(corpus, limits, tokenizer),
        "plan": plan,
        "survey": asdict(fitted.survey),
        "training": fitted.training,
    }
    storage.write_json(out / PLAN_NAME, record)


def prepare_data(
    out: Path, fitted: Fitted, corpus: Corpus, tokenizer: Tokenizer | None, reporter: Reporter
) -> ShardSet:
    """The shards in `out` for the plan, from its tokenizer; what an earlier call finished is not done again."""
    if tokenizer is None:
        tokenizer = _find_tokenizer(out / TOKENIZER_NAME) or _train_tokenizer(out, fitted, corpus, reporter)
    reporter.note("turning the texts into token ids")
    return prepare(
        corpus.inputs,
        tokenizer,
        out / SHARDS_NAME,
        documents=corpus.documents,
        text_key=corpus.text_key,
        validation_fraction=fitted.plan.validation_fraction,
        reporter=reporter,
    )


def has_begun(out: Path) -> bool:
    """Whether the training run in `out` has a checkpoint to go on from."""
    return bool(list_checkpoints(out / "checkpoints"))


def _find_tokenizer(path: Path) -> Tokenizer | None:
    """The tokenizer that an earlier call finished in `path`, or None."""
    return Tokenizer.load(path) if path.exists() else None


def _train_tokenizer(out: Path, fitted: Fitted, corpus: Corpus, reporter: Reporter) -> Tokenizer:
    vocabulary = fitted.plan.vocabulary
    reporter.note(f"training a tokenizer of {vocabulary.size:,} tokens")
    found = read_documents(corpus.inputs, documents=corpus.documents, text_key=corpus.text_key)
    # Tokens that were learned from held-out text would make it look easier than new text.
    _, split = split_documents(found, fitted.plan.validation_fraction)
    return train_tokenizer(
        (document.text for document, is_validation in split if not is_validation),
        vocabulary.size,
        out / TOKENIZER_NAME,
        character_coverage=vocabulary.character_coverage,
        note=reporter.note,
    )


def request_of(corpus: Corpus, limits: Limits, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """All that a plan depends on, by the user's names for it."""
    wishes = json.loads(json.dumps(asdict(limits)))
    return {
        "texts": corpus.fingerprint(),
        "documents": corpus.documents,
        "text_key": corpus.text_key,
        "time": wishes.pop("seconds"),
        **wishes,
        "tokenizer": tokenizer.fingerprint if tokenizer else None,
    }


def _read_fitted(record: dict[str, Any]) -> Fitted:
    values = dict(record["plan"])
    values["vocabulary"] = Vocabulary(**values["vocabulary"])
    values["model"] = ModelConfig.model_validate(values["model"])
    fitted = Fitted(Plan(**values), Survey(**record["survey"]), dict(record["training"]))
    fitted.config()
    return fitted
