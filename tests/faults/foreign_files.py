"""Plants foreign files with names that a program could mistake for its own around inputs and outputs."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

from tinyllm.storage.drafts import MARK_NAME, draft_name

ENDINGS = (".tmp", ".old", ".export", ".part", ".part.json", ".damaged", ".damaged-2", ".lock", ".draft", ".bak", "-2")
INSIDE_RUN = (
    "anything.tmp",
    "model.old",
    "model.tmp",
    "notes.txt",
    "checkpoints/step-00000009.tmp",
    "checkpoints/step-00000009.old",
    "checkpoints/step-00000002-keep",
    "checkpoints/step-best",
    "model/README.md",
)


def plant(folder: Path, names: list[str], number: random.Random) -> list[Path]:
    """Creates foreign files and false drafts beside each of `names` in `folder`; returns their paths."""
    planted = [path for name in names for path in _beside(folder / name, number)]
    return planted + list(_false_drafts(folder, names, number))


def plant_inside_run(run: Path, number: random.Random) -> list[Path]:
    """Creates foreign files in an existing run; returns their paths."""
    planted = [run / name for name in INSIDE_RUN]
    for path in planted:
        _put(path, number, "file" if path.suffix in (".txt", ".md") else None)
    return planted + list(_false_drafts(run, ["model"], number)) + list(_false_drafts(run / "checkpoints", [], number))


def picture(path: Path) -> object:
    """A snapshot of `path`: a file's bytes, a folder's names and snapshots, or a link's target."""
    if path.is_symlink():
        return ("link", os.readlink(path))  # noqa: PTH115 (the text of the link, not a path)
    if path.is_dir():
        return {inner.name: picture(inner) for inner in sorted(path.iterdir())}
    return (path.read_bytes(), path.stat().st_mtime_ns)


def _beside(path: Path, number: random.Random) -> Iterator[Path]:
    for ending in ENDINGS:
        yield _put(path.with_name(path.name + ending), number)
    yield _put(path.with_name(f".{path.name}.lock"), number, "file")


def _put(path: Path, number: random.Random, kind: str | None = None) -> Path:
    """A file, a folder with a file, or a link to a file outside, at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = kind or number.choice(["file", "folder", "link"])
    content = f"precious {number.random()}\n"
    if kind == "file":
        path.write_text(content)
    elif kind == "folder":
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "diary.txt").write_text(content)
        (path / "manifest.json").write_text("{}")
    else:
        outside = path.parent / f"outside-{number.getrandbits(40)}.txt"
        outside.write_text(content)
        path.symlink_to(outside.name)
    return path


def _false_drafts(folder: Path, names: list[str], number: random.Random) -> Iterator[Path]:
    """Folders and files with a draft's name, but without the mark of a draft."""
    folder.mkdir(parents=True, exist_ok=True)

    def name() -> str:
        return draft_name(f"{number.getrandbits(64):016x}")

    without_mark = folder / name()
    (without_mark / "new").mkdir(parents=True)
    (without_mark / "new" / "diary.txt").write_text("precious")
    yield without_mark
    for target in names or ["anything"]:
        # The mark names another draft, as in a copy under another name.
        copied = folder / name()
        (copied / "new").mkdir(parents=True)
        (copied / "new" / "diary.txt").write_text("precious")
        mark = {"draft": draft_name("0" * 16), "target": target, "kind": "model"}
        (copied / MARK_NAME).write_text(json.dumps(mark))
        yield copied
    as_file, as_link, named_wrongly = folder / name(), folder / name(), folder / ".tinyllm-mine.draft"
    as_file.write_text("precious")
    as_link.symlink_to(without_mark.name)
    named_wrongly.mkdir()
    (named_wrongly / MARK_NAME).write_text("{}")
    yield from (as_file, as_link, named_wrongly)
