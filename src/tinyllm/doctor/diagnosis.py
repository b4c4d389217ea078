"""Checks everything that tinyllm wrote below a directory, and names a remedy for each problem. Changes nothing.

Runs, shards, models and tokenizers are recognised by their files. `forecast` tells whether a run will fit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tinyllm import storage
from tinyllm.config.layers import read_own_settings
from tinyllm.errors import ConfigError, InputError, TinyllmError
from tinyllm.model_dir import load_model
from tinyllm.shards.format import ShardSet, read_document_ends
from tinyllm.tokenizer.opening import open_tokenizer
from tinyllm.training.stop_log import early_end

RUN_MARKS = ("checkpoints", "metrics.jsonl", "config.toml")
SEARCH_DEPTH = 3
"""Levels of subfolders that are searched for outputs: RUNS/NAME/model has two."""


@dataclass(frozen=True)
class Finding:
    """The result of checking one file or directory."""

    path: Path
    is_whole: bool
    result: str
    """The result of the check, in one line."""
    remedy: str = ""
    """The action that repairs it, with parameters and calls in backticks as in a hint; empty if none is needed."""

    def __post_init__(self) -> None:
        assert self.is_whole or self.remedy, "a finding that is not whole needs a remedy"


def diagnose(path: Path) -> list[Finding]:
    """One finding for each output at `path` or in its subfolders; every byte is read.

    Raises InputError if tinyllm wrote nothing there.
    """
    drafts = storage.drafts_of(path)
    if not path.exists() and drafts:
        return [_describe_draft(draft) for draft in drafts]
    if not path.is_dir():
        raise InputError(f"{path} is a file, not a directory" if path.exists() else f"{path} does not exist")
    findings = [finding for output in _outputs_in(path, SEARCH_DEPTH) for finding in _examine(output)]
    findings += [] if _is_output(path) else [_describe_draft(draft) for draft in storage.drafts_in(path)]
    if not findings:
        raise InputError(f"{path} and its subfolders hold no run, shards, model or tokenizer that tinyllm wrote")
    return findings


def _outputs_in(folder: Path, depth: int) -> Iterator[Path]:
    """`folder` if it is an output, else the outputs at most `depth` folders below; links are not followed."""
    if _is_output(folder):
        yield folder
    elif depth:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                yield from _outputs_in(path, depth - 1)


def _is_output(path: Path) -> bool:
    """Whether `path` looks like an output of a command, even without its manifest."""
    names = (storage.MANIFEST_NAME, *RUN_MARKS, *_MARKS)
    return any((path / name).exists() for name in names) or any(path.glob("*.bin"))


def _examine(path: Path) -> list[Finding]:
    has_manifest = (path / storage.MANIFEST_NAME).exists()
    if not has_manifest and any((path / mark).exists() for mark in RUN_MARKS):
        return list(_examine_run(path))
    if not has_manifest and any(path.glob("*.bin")) and not any(path.glob("*.idx")):
        return [Finding(path, True, "bare .bin files: without a manifest they cannot be checked")]
    return list(_examine_committed(path))


def _examine_committed(path: Path) -> Iterator[Finding]:
    """The finding for one directory with a manifest."""
    kind = "directory"
    try:
        kind = storage.read_manifest(path).kind
        storage.verify(path)
        contents = _EXAMINERS.get(kind, _count_files)(path)
    except TinyllmError as error:
        yield Finding(path, False, str(error), _REMEDIES.get(_kind_of(path, kind), _REMEDY).format(path=path))
        return
    yield Finding(path, True, f"{kind}, {contents}; every checksum is right")


def _examine_run(run: Path) -> Iterator[Finding]:
    from tinyllm.training.checkpoint import list_checkpoints, read_state

    if storage.is_locked(run / storage.LOCK_NAME):
        yield Finding(run, True, "a run is in progress here")
    saved_steps: list[int] = []
    damaged: list[tuple[Path, str]] = []
    for path in list_checkpoints(run / "checkpoints"):
        try:
            storage.verify(path, "checkpoint")
            saved_steps.append(read_state(path).step)
        except TinyllmError as error:
            damaged.append((path, str(error)))
            continue
        yield Finding(path, True, f"checkpoint of step {saved_steps[-1]}; every checksum is right")
    for path, complaint in damaged:
        remedy = "resume sets it aside and goes on from an earlier checkpoint"
        yield Finding(path, False, complaint, remedy if saved_steps else "no other one is whole")
    if (run / "model").exists():
        for finding in _examine_committed(run / "model"):
            remedy = "resume sets it aside; the next evaluation writes a new one"
            yield finding if finding.is_whole else replace(finding, remedy=remedy)
    yield from _examine_config(run / "config.toml")
    yield from _examine_log(run / "metrics.jsonl")
    for folder in (run, run / "checkpoints"):
        for draft in storage.drafts_in(folder):
            yield _describe_draft(draft)
        for path in sorted(folder.glob("*.damaged*")):
            yield Finding(path, True, "damaged, and set aside earlier; remove it when you do not need it")
    yield _examine_progress(run, saved_steps, bool(damaged))


def _examine_config(path: Path) -> Iterator[Finding]:
    """The run's settings: readable, or what is wrong with them."""
    try:
        read_own_settings(path)
    except ConfigError as error:
        remedy = f"remove {path} or mend it; then resume with the run's settings: `config=FILE`, or `recipe` and others"
        yield Finding(path, False, str(error), remedy)


def _examine_log(path: Path) -> Iterator[Finding]:
    if not path.exists():
        return
    with path.open("rb") as file:
        num_lines = sum(1 for _ in file)
    records = storage.read_json_lines(path)
    steps = [record["step"] for record in records if isinstance(record.get("step"), int)]
    contents = f"{len(records)} lines, up to step {max(steps, default=0)}"
    if num_lines == len(records):
        yield Finding(path, True, contents)
    else:
        lost = num_lines - len(records)
        yield Finding(path, False, f"{contents}; {lost} line(s) cannot be read", "resume leaves them out")


def _examine_progress(run: Path, saved_steps: list[int], some_damaged: bool) -> Finding:
    """Whether the run is finished, can be resumed, or must start again; `saved_steps` are those of checkpoints."""
    num_steps = _planned_steps(run)
    call = f"`train(data=SHARDS, out={run}, resume=True)`"
    if not saved_steps and some_damaged:
        again = f"with `config={run / 'config.toml'}` `out=NEW-DIRECTORY`"
        return Finding(run, False, "no checkpoint to go on from", f"start again in another directory, {again}")
    if not saved_steps:
        return Finding(run, False, "no checkpoint to go on from", f"start it again: {call}")
    if saved_steps[0] == num_steps:
        return Finding(run, True, f"finished at step {num_steps}")
    planned = f" of {num_steps}" if num_steps else ""
    if saved_steps[0] == early_end(run):
        return Finding(run, True, f"ended early at step {saved_steps[0]}{planned}: the validation loss stopped falling")
    return Finding(run, True, f"stopped at step {saved_steps[0]}{planned}", f"go on with: {call}")


def _planned_steps(run: Path) -> int | None:
    import tomllib

    try:
        schedule = tomllib.loads((run / "config.toml").read_text(encoding="utf-8")).get("schedule", {})
    except (OSError, ValueError):
        return None
    num_steps = schedule.get("num_steps") if isinstance(schedule, dict) else None
    return num_steps if isinstance(num_steps, int) else None


def _examine_shards(path: Path) -> str:
    shards = ShardSet.open(path, verify="full")
    for entry in shards.entries:
        if entry.split == "train" or entry.counts.documents:
            read_document_ends(path / f"{entry.name}.idx", entry.counts.tokens)
    train, validation = shards.train_counts, shards.validation_counts
    return f"{train.tokens:,} training and {validation.tokens:,} validation tokens, every id in the vocabulary"


def _examine_model(path: Path) -> str:
    model, tokenizer = load_model(path)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    finite = all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    if not finite:
        raise InputError(f"{path} has weights that are not finite")
    return f"{num_parameters:,} parameters, all finite, {tokenizer.vocab_size:,} tokens"


def _examine_tokenizer(path: Path) -> str:
    return f"{open_tokenizer(path).vocab_size:,} tokens"


def _count_files(path: Path) -> str:
    return f"{len(storage.read_manifest(path).files)} files"


_EXAMINERS: dict[str, Callable[[Path], str]] = {
    "shards": _examine_shards,
    "model": _examine_model,
    "tokenizer": _examine_tokenizer,
}
_REMEDIES = {
    "shards": "make it again: `prepare(FILES, tokenizer=TOKENIZER, output=NEW-DIRECTORY)`, and remove {path}",
    "tokenizer": "make it again: `train_tokenizer(FILES, output=NEW-DIRECTORY)`, and remove {path}; "
    "the same files and options give the same tokenizer",
    "model": "copy it again from where it came from, or train on: `train(data=SHARDS, out=RUN, resume=True)`",
    "checkpoint": "go on from another one: `train(data=SHARDS, out=RUN, resume=True)`",
    "classifier": "copy it again from where it came from, or train it again in another "
    "directory: `train_classifier(MODEL, output=NEW-DIRECTORY)`",
}
_REMEDY = "copy {path} again from where it came from, or make it again by the command that wrote it"
_MARKS = {"state.json": "checkpoint", "model.safetensors": "model", "tokenizer.vocab": "tokenizer"}
"""File -> kind of the output that it belongs to, for outputs whose manifest is damaged or missing."""


def _kind_of(path: Path, kind: str) -> str:
    """`kind` if it is a known kind, else the kind that the files in `path` imply."""
    if kind in _REMEDIES:
        return kind
    if any(path.glob("*.idx")):
        return "shards"
    return next((implied for name, implied in _MARKS.items() if (path / name).exists()), kind)


def _describe_draft(draft: storage.Draft) -> Finding:
    """The finding for an output that a command is writing, or left unfinished."""
    if draft.is_live:
        return Finding(draft.target, True, f"a command is writing it, in {draft.folder}")
    num_shards = sum(1 for _ in draft.new.glob("*.idx"))
    kept = f"; its {num_shards} finished shard(s) are kept" if num_shards else ""
    result = f"not finished: an interrupted command left {draft.folder}"
    return Finding(draft.target, False, result, f"run the same command again{kept}")
