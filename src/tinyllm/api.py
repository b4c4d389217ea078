"""The public functions, for programs that do not use the command line.

Each function builds a config and calls a stage. They print nothing. `tinyllm train` is `run_training` with a display.
In a notebook, `train` and `fit` without a reporter show their progress below the cell.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, get_args

from tinyllm import storage
from tinyllm.arguments import as_choice, as_number, as_path, as_paths, as_text, as_texts, as_whole_number, wrong_type
from tinyllm.config.layers import build_run_config, to_toml
from tinyllm.errors import ConfigError, UsageError
from tinyllm.progress import SILENT, Reporter

if TYPE_CHECKING:
    from tinyllm.config import Config
    from tinyllm.corpus.text import DocumentRule
    from tinyllm.evaluation.report import Report
    from tinyllm.planning.plan import Plan
    from tinyllm.planning.reporter import FitReporter
    from tinyllm.shards.format import ShardSet
    from tinyllm.tokenizer.codec import Tokenizer
    from tinyllm.training.outcome import Outcome
    from tinyllm.training.reporter import TrainingReporter


def generate(prompt: str = "", *, model: str | Path | None = None, **settings: Any) -> str:
    """`prompt` and its continuation by `model`, by default the bundled one; `settings` are fields of `SamplingConfig`.

    For several texts or streams, load the model once with `tinyllm.load(path)`. Raises the errors of `load` and
    `Generator.generate`.

    >>> tinyllm.generate("Once upon a time", max_new_tokens=4, temperature=0)
    'Once upon a time there was a lively'
    """
    from tinyllm.loading import load

    result = load(None if model is None else as_path(model, "model")).stream(prompt, **settings).generation
    return result.prompt + result.text


def evaluate(
    *models: str | Path,
    data: str | Path | None = None,
    text: str | Path | Sequence[str | Path] = (),
    tasks: str | Path | Sequence[str | Path] = (),
    pairs: bool = True,
    num_samples: int = 20,
    prompt: str = "",
    max_bytes: int = 200_000,
    tokenizer: str | Path | None = None,
    device: str = "auto",
    reporter: Reporter = SILENT,
    **settings: Any,
) -> "Report":
    """The figures of `models`, by default the bundled one, on the same texts, tasks and samples, side by side.

    data         shards: bits per byte of their validation text, and how much the samples copy from their training text
    text         files to measure in bits per byte
    tasks        JSON Lines files of pairs, choices and cloze (see `tinyllm.evaluation.tasks`)
    pairs        whether to score the 1,000 built-in pairs of storybook sentences
    num_samples  texts that each model writes after `prompt`; 0 for none
    max_bytes    limit of the validation text of `data`; 0 for all
    tokenizer    for model files with no tokenizer inside or beside them
    settings     fields of `SamplingConfig` for the samples

    >>> report = tinyllm.evaluate(text="stories.txt", pairs=False, num_samples=0)
    >>> print(report)
                                            storybook
    parameters                              1,144,192
    context, tokens                               256
    bits per byte of text (lower is better)
      stories.txt                               0.807

    Raises ConfigError for a setting out of range, InputError or FormatError for a file that cannot be read, and the
    errors of `load`.
    """
    from tinyllm.evaluation.comparison import Sampling, evaluate_model, read_material
    from tinyllm.evaluation.report import Report
    from tinyllm.generation.generator import sampling_config
    from tinyllm.loading import find

    for name, value in (("num_samples", num_samples), ("max_bytes", max_bytes)):
        if as_whole_number(value, name) < 0:
            raise ConfigError(f"{name} is {value}; give 0 or more", parameter=name)
    _check_reporter(reporter)
    if not (pairs or num_samples or data or text or tasks):
        raise ConfigError("there is nothing to measure: give data, text or tasks, or leave pairs or samples on")
    sampling = Sampling(num_samples, as_text(prompt, "prompt"), sampling_config(**settings))
    paths = [find(model) for model in as_paths(models, "models") or (None,)]
    file = None if tokenizer is None else as_path(tokenizer, "tokenizer")
    material = read_material(
        None if data is None else as_path(data, "data"),
        as_paths(text, "text"),
        as_paths(tasks, "tasks"),
        with_pairs=pairs,
        max_bytes=max_bytes or None,
    )
    return Report(
        tuple(
            evaluate_model(path, material, sampling, tokenizer=file, device=device, reporter=reporter) for path in paths
        )
    )


def train_tokenizer(
    files: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    vocab_size: int = 4096,
    documents: "DocumentRule" = "auto",
    text_key: str | None = None,
    character_coverage: float = 1.0,
    max_input_bytes: int = 100_000_000,
    seed: int = 0,
    special: Sequence[str] = (),
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> "Tokenizer":
    """Trains a tokenizer on `files` and writes the directory `output`, as `tinyllm tokenizer train` does.

    files            files, folders or patterns
    documents        end of a document in plain text; "auto" means <|endoftext|>, else the end of the file
    text_key         key or column of the text in records
    max_input_bytes  from longer texts, lines are sampled with `seed`
    special          pieces to reserve, such as chat markers

    >>> tokenizer = tinyllm.train_tokenizer("stories.txt", "small", vocab_size=400)
    >>> tokenizer.decode(tokenizer.encode("Once upon a time"))
    'Once upon a time'

    Raises InputError for files that cannot be read or have too little text, and UsageError for an option out of range.
    Raises ArtifactError if `output` exists without `overwrite`.
    """
    from tinyllm.corpus.documents import read_documents
    from tinyllm.storage.remote.outputs import directory_output
    from tinyllm.tokenizer.training import train_tokenizer as train_on_texts

    _check_reporter(reporter)
    _check_reading(documents, text_key)
    found = read_documents(as_paths(files, "files"), documents=documents, text_key=text_key, note=reporter.note)
    with directory_output(as_path(output, "output"), "tokenizer", overwrite=overwrite, note=reporter.note) as (
        place,
        replaces,
    ):
        return train_on_texts(
            (document.text for document in found),
            as_whole_number(vocab_size, "vocab_size"),
            place,
            character_coverage=as_number(character_coverage, "character_coverage"),
            max_input_bytes=as_whole_number(max_input_bytes, "max_input_bytes"),
            seed=as_whole_number(seed, "seed"),
            special=as_texts(special, "special"),
            overwrite=replaces,
            note=reporter.note,
        )


def prepare(
    files: str | Path | Sequence[str | Path],
    tokenizer: "str | Path | Tokenizer",
    output: str | Path,
    *,
    documents: "DocumentRule" = "auto",
    text_key: str | None = None,
    validation_fraction: float = 0.01,
    append_eos: bool = False,
    num_workers: int | None = None,
    shard_tokens: int | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> "ShardSet":
    """Turns `files` into the shard directory `output`, as `tinyllm prepare` does.

    files                files, folders or patterns
    tokenizer            a tokenizer, or the path of a tokenizer or model directory, `.model` or tokenizer.json
    documents            end of a document in plain text; "auto" means <|endoftext|>, else the end of the file
    text_key             key or column of the text in records
    validation_fraction  fraction of documents for validation
    num_workers          encoding processes; None means one per core
    shard_tokens         largest number of tokens in a shard; None means 2^24, about 16.8 million

    >>> shards = tinyllm.prepare("stories.txt", "tokenizer", "mine", validation_fraction=0.1, num_workers=1)
    >>> shards.train_counts.documents + shards.validation_counts.documents
    200

    The same call goes on after a stop; an `output` that is up to date stays as it is. Raises InputError for files that
    cannot be used, and ArtifactError if `output` exists without `overwrite`.
    """
    from tinyllm.shards.writer import prepare as prepare_shards
    from tinyllm.storage.remote.outputs import directory_output

    _check_reporter(reporter)
    options = _shard_options(
        documents=documents,
        text_key=text_key,
        validation_fraction=validation_fraction,
        append_eos=append_eos,
        shard_tokens=shard_tokens,
    )
    tokenizer = _as_tokenizer(tokenizer)
    with directory_output(as_path(output, "output"), "shards", overwrite=overwrite, note=reporter.note) as (
        place,
        replaces,
    ):
        return prepare_shards(
            as_paths(files, "files"),
            tokenizer,
            place,
            num_workers=None if num_workers is None else as_whole_number(num_workers, "num_workers"),
            overwrite=replaces,
            reporter=reporter,
            **options,
        )


class ShardOptions(TypedDict, total=False):
    """The options of `prepare` that decide the bytes of shards."""

    documents: "DocumentRule"
    text_key: str | None
    validation_fraction: float
    append_eos: bool
    shard_tokens: int | None


def prepare_part(
    files: str | Path | Sequence[str | Path],
    tokenizer: "str | Path | Tokenizer",
    output: str | Path,
    *,
    task: int,
    num_tasks: int,
    num_workers: int | None = None,
    reporter: Reporter = SILENT,
    **options: Unpack[ShardOptions],
) -> Path:
    """Writes the part of one of `num_tasks` tasks beside the shards `output`, as `tinyllm prepare --task` does.

    task       number of the task, 0 to `num_tasks - 1`
    num_tasks  number of tasks, on one machine or on many, that share the work
    options    those of `prepare` that decide the bytes of the shards; all tasks and the merge need the same ones

    >>> for task in range(2):
    ...     part = tinyllm.prepare_part("stories.txt", "tokenizer", "joint", task=task, num_tasks=2, num_workers=1)
    >>> print(part)
    joint.parts/part-00001-of-00002

    A task that was stopped is done again by the same call. Raises the errors of `prepare`, and UsageError for a task
    that does not exist.
    """
    from tinyllm.shards.part_writer import prepare_part as write_part

    _check_reporter(reporter)
    return write_part(
        as_paths(files, "files"),
        _as_tokenizer(tokenizer),
        as_path(output, "output"),
        task=as_whole_number(task, "task"),
        num_tasks=as_whole_number(num_tasks, "num_tasks"),
        num_workers=None if num_workers is None else as_whole_number(num_workers, "num_workers"),
        reporter=reporter,
        **_shard_options(**options),
    )


def merge_parts(
    files: str | Path | Sequence[str | Path],
    tokenizer: "str | Path | Tokenizer",
    output: str | Path,
    *,
    num_tasks: int | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
    **options: Unpack[ShardOptions],
) -> "ShardSet":
    """Joins the parts of all tasks into the shards `output`, as `tinyllm prepare --merge` does.

    The bytes are those of `prepare` with the same `files`, `tokenizer` and `options`. `num_tasks` None means the number
    in the names of the parts. The parts are removed when the shards are whole.

    >>> for task in range(2):
    ...     part = tinyllm.prepare_part("stories.txt", "tokenizer", "joint", task=task, num_tasks=2, num_workers=1)
    >>> shards = tinyllm.merge_parts("stories.txt", "tokenizer", "joint")
    >>> shards.train_counts.documents + shards.validation_counts.documents
    200

    Raises the errors of `prepare`, and ArtifactError for a part that is missing or damaged. Raises MismatchError for a
    part that was made from other files, by another tokenizer, or with other options.
    """
    from tinyllm.shards.merge import merge_parts as join_parts
    from tinyllm.shards.parts import parts_folder
    from tinyllm.storage.remote.outputs import directory_output

    _check_reporter(reporter)
    target = as_path(output, "output")
    with directory_output(target, "shards", overwrite=overwrite, note=reporter.note) as (place, replaces):
        return join_parts(
            as_paths(files, "files"),
            _as_tokenizer(tokenizer),
            place,
            num_tasks=None if num_tasks is None else as_whole_number(num_tasks, "num_tasks"),
            folder=parts_folder(target),
            overwrite=replaces,
            reporter=reporter,
            **_shard_options(**options),
        )


def _shard_options(
    *,
    documents: "DocumentRule" = "auto",
    text_key: str | None = None,
    validation_fraction: float = 0.01,
    append_eos: bool = False,
    shard_tokens: int | None = None,
) -> dict[str, Any]:
    """The options that decide the bytes of shards, checked."""
    from tinyllm.shards.recipe import SHARD_TOKENS

    _check_reading(documents, text_key)
    return {
        "documents": documents,
        "text_key": text_key,
        "validation_fraction": as_number(validation_fraction, "validation_fraction"),
        "append_eos": append_eos,
        "shard_tokens": SHARD_TOKENS if shard_tokens is None else as_whole_number(shard_tokens, "shard_tokens"),
    }


def _as_tokenizer(tokenizer: "str | Path | Tokenizer") -> "Tokenizer":
    from tinyllm.exchange.tokenizer_source import load_tokenizer
    from tinyllm.tokenizer.codec import Tokenizer

    return tokenizer if isinstance(tokenizer, Tokenizer) else load_tokenizer(as_path(tokenizer, "tokenizer"))


def train(
    data: str | Path,
    out: str | Path,
    *,
    recipe: str | None = None,
    resume: bool = False,
    reporter: "TrainingReporter | None" = None,
    **sections: dict[str, Any],
) -> "Outcome":
    """Trains on the shards `data` into the run directory `out`; `sections` override the recipe's settings.

    >>> shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "context_length": 32}
    >>> rows = {"batch_size": 4, "accumulation_steps": 1, "sequence_length": 32, "eval_batches": 1}
    >>> tinyllm.train("shards", "runs/mine", model=shape, training=rows, schedule={"num_steps": 3}).state.step
    3

    Does all that `tinyllm train` does: the same checks, files and samples. With `resume` the run in `out` continues
    from its newest checkpoint, with the settings of its own config.toml. Any other run starts from `recipe`, by default
    "seed"; `training={"init_from": "a model"}` gives its shape and weights. `reporter` receives steps, evaluations and
    notes, by those methods of a `TrainingReporter` that it has. Outside the main thread, signals do not save the run.

    Raises ConfigError, MismatchError or UsageError before the first step for invalid settings, Interrupted after
    saving for a signal, DivergenceError if losses or gradients stay non-finite.
    """
    from tinyllm.loading import read_shape
    from tinyllm.machine import launcher, ranks
    from tinyllm.notebook import NotebookDisplay, in_notebook
    from tinyllm.shards.format import ShardSet
    from tinyllm.training.remote_run import local_run, opened_run
    from tinyllm.training.reporter import TrainingReporter, as_training_reporter

    if reporter is not None:
        reporter = as_training_reporter(reporter)
    else:
        reporter = NotebookDisplay() if in_notebook() else TrainingReporter()
    place = as_path(out, "out")
    with launcher.joined(), ExitStack() as stack:
        reporter = reporter if ranks.is_first() else TrainingReporter()
        shards = ShardSet.open(as_path(data, "data"), note=reporter.note)
        resume = resume or launcher.is_restart_of(local_run(place))
        run = stack.enter_context(opened_run(place, resume=resume, note=reporter.note))
        config, resume = build_run_config(
            shards.tokenizer.vocab_size,
            run,
            [("", sections)],
            recipe=None if recipe is None else as_text(recipe, "recipe"),
            resume=resume,
            note=reporter.note,
            shape_of=read_shape,
        )
        return run_training(config, shards, run, resume=resume, reporter=reporter)


def run_training(
    config: "Config", shards: "ShardSet", out: Path, *, resume: bool, reporter: "TrainingReporter"
) -> "Outcome":
    """Trains by `config` into the run directory `out`, with samples at each evaluation; errors as `train`.

    The command line, the demo and the scripts call this function too, so that every run has the same checks and files.
    """
    from tinyllm.generation.training_samples import sample_texts
    from tinyllm.loading import open_model
    from tinyllm.machine import ranks
    from tinyllm.model.size import num_parameters
    from tinyllm.training.builder import build_trainer
    from tinyllm.training.reporter import TrainingReporter

    reporter = reporter if ranks.is_first() else TrainingReporter()
    trainer = build_trainer(
        config, shards, out, reporter=reporter, sampler=sample_texts, read_source=lambda path: open_model(path)
    )
    reporter.note(f"{num_parameters(config.model):,} parameters, {shards.train_counts.tokens:,} training tokens")
    reporter.note(f"logs and model go to {trainer.run}")
    return trainer.train(resume=resume, to_toml=to_toml)


@dataclass(frozen=True)
class Fit:
    """The result of `fit`."""

    plan: "Plan"
    outcome: "Outcome | None"
    """The result of the training run; None if only the plan was made."""


def fit(
    texts: "str | Path | Sequence[str | Path]",
    out: str | Path,
    *,
    minutes: float = 10,
    max_parameters: int | None = None,
    max_file_bytes: int | None = None,
    tokenizer: "str | Path | Tokenizer | None" = None,
    documents: "DocumentRule" = "auto",
    text_key: str | None = None,
    only_plan: bool = False,
    reporter: "FitReporter | None" = None,
) -> Fit:
    """Trains the largest model that `texts`, this machine and `minutes` allow, by a plan that it makes itself.

    `out` becomes a run directory, which also holds plan.json, tokenizer/ and shards/. The same call goes on after a
    stop. `max_parameters` and `max_file_bytes` limit the model and its directory. `tokenizer` names one to use. With
    `only_plan` nothing is written.

    >>> fit = tinyllm.fit("stories.txt", "runs/fitted", minutes=1, only_plan=True)
    >>> fit.outcome is None
    True

    Raises InputError for texts that cannot be used. Raises UsageError for limits that leave no model, and for a
    directory that holds something else. Raises the errors of `train` too.
    """
    from tinyllm.notebook import NotebookDisplay, in_notebook
    from tinyllm.planning import stages
    from tinyllm.planning.plan import Limits
    from tinyllm.planning.reporter import FitReporter

    if reporter is None:
        reporter = NotebookDisplay(minutes) if in_notebook() else FitReporter()
    if not isinstance(reporter, FitReporter):
        raise wrong_type("reporter", reporter, "a tinyllm.planning.reporter.FitReporter")
    _check_reading(documents, text_key)
    corpus = stages.Corpus(as_paths(texts, "texts"), documents, text_key)
    if not 0 < as_number(minutes, "minutes") < math.inf:
        raise UsageError(f"minutes is {minutes}; it should be greater than 0 and finite", parameter="minutes")
    limits = Limits(
        minutes * 60,
        None if max_parameters is None else as_whole_number(max_parameters, "max_parameters"),
        None if max_file_bytes is None else as_whole_number(max_file_bytes, "max_file_bytes"),
    )
    run = storage.follow_link(as_path(out, "out"))
    own = _as_tokenizer(tokenizer) if tokenizer is not None else None
    if only_plan:
        return Fit(stages.plan_run(corpus, limits, own, reporter).plan, None)
    fitted, shards = stages.begin(corpus, limits, own, run, reporter)
    with stages.repeatable():
        outcome = run_training(fitted.config(), shards, run, resume=stages.has_begun(run), reporter=reporter)
    return Fit(fitted.plan, outcome)


def _check_reading(documents: object, text_key: object) -> None:
    """Raises ConfigError for a rule of documents that does not exist, and for a key that is no text."""
    from tinyllm.corpus.text import DocumentRule

    as_choice(documents, "documents", get_args(DocumentRule))
    if text_key is not None:
        as_text(text_key, "text_key")


def _check_reporter(receiver: object) -> None:
    if not isinstance(receiver, Reporter):
        raise wrong_type("reporter", receiver, "a tinyllm.Reporter")
