"""The run directory: its file names, the checks before a run writes into a folder, and its lock.

config.toml  metrics.jsonl  samples.jsonl  stops.jsonl  loss.svg  checkpoints/  model/  .lock
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyllm import storage
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.machine import ranks
from tinyllm.model_dir import MODEL
from tinyllm.progress import Note
from tinyllm.training import stop_log
from tinyllm.training.checkpoint import KIND, is_checkpoint_of, list_checkpoints
from tinyllm.training.saved_model import ModelDirectory

FILES = ("config.toml", "metrics.jsonl", "samples.jsonl", stop_log.NAME, "loss.svg")
NAMES = (*FILES, "checkpoints", "model", storage.LOCK_NAME)


def is_run(folder: Path) -> bool:
    """Whether tinyllm wrote a run in `folder`: it has the lock or a checkpoint (version 0.1 left the lock empty)."""
    if storage.has_lock_text(folder / storage.LOCK_NAME):
        return True
    return any(is_checkpoint_of(path) for path in list_checkpoints(folder / "checkpoints"))


def check_run_directory(folder: Path) -> None:
    """Raises UsageError if a run in `folder` would replace files that tinyllm did not write.

    Another run may begin here meanwhile. It makes its lock before any other file, and that lock is empty for a moment.
    So the files are looked for before the text of the lock, and an empty lock counts as tinyllm's.
    """
    if not folder.is_dir():
        return
    manifest = (folder / storage.MANIFEST_NAME).exists()
    found = [folder / name for name in NAMES if (folder / name).exists() and not _is_empty(folder / name)]
    if not (manifest or found) or is_run(folder):
        return
    if manifest:
        raise UsageError(
            f"{folder} has a {storage.MANIFEST_NAME}, so it is no run", hint="choose another `out` directory"
        )
    raise UsageError(
        f"{found[0]} exists, and no run of tinyllm wrote it", hint="choose another `out` directory, or move it"
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of the run in `folder` inside; the first rank holds it for all."""
    if not ranks.is_first():
        yield
        return
    with storage.exclusive(folder):
        yield


def clear_away_leftovers(folder: Path, model: ModelDirectory, note: Note) -> None:
    """Removes drafts of interrupted saves, and renames a damaged model directory to make room for a new one."""
    for parent in (folder, folder / "checkpoints"):
        for draft in storage.remove_dead_drafts(parent):
            note(f"{draft.folder}, left by an interrupted save of {draft.target}, is removed")
    try:
        model.verify()
    except TinyllmError as error:
        aside = storage.set_aside(model.path)
        note(f"{error}; it was moved to {aside}, and the next evaluation writes a new one")


def clear_run(folder: Path) -> None:
    """Removes the files, checkpoints and model of the run in `folder`; other files stay.

    Raises UsageError if `folder` is not a run, or if its model directory holds files that tinyllm did not write.
    Raises ArtifactError if the run is in use.
    """
    if not folder.exists():
        return
    if not is_run(folder):
        raise UsageError(f"{folder} is not a run of tinyllm; move it, or choose another place")
    model = folder / "model"
    with storage.exclusive(folder):
        if model.exists() and not storage.remove_directory(model, MODEL):
            raise UsageError(f"{model} holds files that tinyllm did not write; move them, or choose another place")
        for parent in (folder, folder / "checkpoints"):
            storage.remove_dead_drafts(parent)
        for path in list_checkpoints(folder / "checkpoints"):
            if is_checkpoint_of(path):
                storage.remove_directory(path, KIND)
        for name in FILES:
            if (folder / name).is_file():
                storage.disk.remove_file(folder / name)


def _is_empty(path: Path) -> bool:
    """Whether `path` is a folder without entries, or a lock without text."""
    return not any(path.iterdir()) if path.is_dir() else path.name == storage.LOCK_NAME and path.stat().st_size == 0
