"""What is whole in a directory that tinyllm wrote, what is not, and what repairs it. Nothing is changed.

A run, shards, a model or a tokenizer is recognised by what it holds. Whether a run will fit is `forecast`'s matter.
"""

import fcntl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinyllm import storage
from tinyllm.errors import InputError, TinyllmError
from tinyllm.model_dir import load_model
from tinyllm.shards.format import ShardSet, read_document_ends
from tinyllm.tokenizer.codec import Tokenizer

RUN_MARKS = ("checkpoints", "metrics.jsonl", "config.toml")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    path: Path
    whole: bool
    story: str
    """What was found, in one line."""
    remedy: str = ""
    """What to do about it; empty where there is nothing to do."""


def diagnose(path: Path) -> list[Finding]:
    """Looks at every byte below `path`. Raises InputError where there is nothing that tinyllm could have written."""
    draft = path.with_name(path.name + ".tmp")
    if not path.exists() and draft.is_dir():
        return [Finding(path, False, f"not finished: {draft} is what an interrupted command left", _again(draft))]
    if not path.is_dir():
        raise InputError(f"{path} is a file, not a directory" if path.exists() else f"{path} does not exist")
    if any((path / mark).exists() for mark in RUN_MARKS) and not (path / storage.MANIFEST_NAME).exists():
        return list(_examine_run(path))
    if not (path / storage.MANIFEST_NAME).exists() and any(path.glob("*.bin")):
        return [Finding(path, True, "bare .bin files: without a manifest there is nothing to compare them with")]
    return list(_examine_committed(path))


def _examine_committed(path: Path) -> Iterator[Finding]:
    """One directory with a manifest."""
    old = path.with_name(path.name + ".old")
    if old.exists():
        yield Finding(old, False, "a replacement that was interrupted", f"the next command that reads {path} ends it")
        return
    kind = "directory"
    try:
        manifest = storage.verify(path)
        kind = manifest.kind
        story = _EXAMINERS.get(kind, _count_files)(path)
    except TinyllmError as error:
        yield Finding(path, False, str(error), _REMEDIES.get(_kind_of(path, kind), "").format(path=path))
        return
    yield Finding(path, True, f"{kind}, {story}; every checksum is right")


def _examine_run(run: Path) -> Iterator[Finding]:
    from tinyllm.training.checkpoint import list_checkpoints, read_state

    if _is_held(run / storage.LOCK_NAME):
        yield Finding(run, True, "a run is in progress here")
    whole: list[int] = []
    for path in list_checkpoints(run / "checkpoints"):
        try:
            storage.verify(path, "checkpoint")
            whole.append(read_state(path).step)
        except TinyllmError as error:
            yield Finding(path, False, str(error), "resume sets it aside and goes on from the one before")
            continue
        yield Finding(path, True, f"checkpoint of step {whole[-1]}; every checksum is right")
    if (run / "model").exists() or (run / "model.old").exists():
        for finding in _examine_committed(run / "model"):
            remedy = finding.remedy if finding.whole else "resume sets it aside; the next evaluation writes a new one"
            yield Finding(finding.path, finding.whole, finding.story, remedy)
    yield from _examine_log(run / "metrics.jsonl")
    for folder in (run, run / "checkpoints"):
        for path in sorted(folder.glob("*.tmp")):
            yield Finding(path, False, "left by a save that was interrupted", "the next start removes it")
        for path in sorted(folder.glob("*.damaged")):
            yield Finding(path, True, "damaged, and set aside earlier; remove it when you do not need it")
    yield _what_next(run, whole)


def _examine_log(path: Path) -> Iterator[Finding]:
    if not path.exists():
        return
    with path.open("rb") as file:
        num_lines = sum(1 for _ in file)
    records = storage.read_json_lines(path)
    steps = [record["step"] for record in records if isinstance(record.get("step"), int)]
    story = f"{len(records)} lines, up to step {max(steps, default=0)}"
    if num_lines == len(records):
        yield Finding(path, True, story)
    else:
        lost = num_lines - len(records)
        yield Finding(path, False, f"{story}; {lost} line(s) cannot be read", "resume leaves them out")


def _what_next(run: Path, whole: list[int]) -> Finding:
    """The run as a whole: finished, to be resumed, or to be started anew."""
    num_steps = _planned_steps(run)
    command = f"tinyllm train --data SHARDS --config {run / 'config.toml'} --out {run} --resume auto"
    if not whole:
        return Finding(run, False, "no checkpoint to go on from", f"start it again: {command}")
    if whole[0] == num_steps:
        return Finding(run, True, f"finished at step {num_steps}")
    planned = f" of {num_steps}" if num_steps else ""
    return Finding(run, True, f"stopped at step {whole[0]}{planned}", f"go on with: {command}")


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
    assert shards.details is not None
    for entry in shards.details.shards:
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
    return f"{Tokenizer.load(path).vocab_size:,} tokens"


def _count_files(path: Path) -> str:
    return f"{len(storage.read_manifest(path).files)} files"


_EXAMINERS: dict[str, Callable[[Path], str]] = {
    "shards": _examine_shards,
    "model": _examine_model,
    "tokenizer": _examine_tokenizer,
}
_REMEDIES = {
    "shards": "make it again: tinyllm prepare FILES --tokenizer TOKENIZER -o NEW-DIRECTORY, and remove {path}",
    "tokenizer": "make it again: tinyllm tokenizer train FILES -o NEW-DIRECTORY, and remove {path}; "
    "the same files and options give the same tokenizer",
    "model": "copy it again from where it came from, or train on: tinyllm train --out RUN --resume auto",
    "checkpoint": "go on from another one: tinyllm train --out RUN --resume auto",
}


def _kind_of(path: Path, kind: str) -> str:
    """The kind of a directory, even where its manifest is damaged: told by the files that are there."""
    marks = {"state.json": "checkpoint", "model.safetensors": "model", "tokenizer.vocab": "tokenizer"}
    if kind in _REMEDIES:
        return kind
    if any(path.glob("*.idx")):
        return "shards"
    return next((meant for name, meant in marks.items() if (path / name).exists()), kind)


def _again(draft: Path) -> str:
    num_finished = sum(1 for _ in draft.glob("*.idx"))
    kept = f"; its {num_finished} shard(s) are kept" if (draft / "journal.jsonl").exists() else ""
    return f"run the same command again{kept}"


def _is_held(lock: Path) -> bool:
    """Whether another process holds the lock; it is let go at once if not."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
