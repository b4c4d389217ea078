"""Finds the runs, models, shards and tokenizers in a folder, without changing anything there. Bounded in every way.

No link is followed out of the folder. Names and facts come from small files alone; they are kept until a file changes.
A place is found by its id: the path from the folder, with `/` between names.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyllm import storage
from tinyllm.errors import TinyllmError
from tinyllm.model import size
from tinyllm.model_dir import CONFIG_NAME, WEIGHTS_NAME, read_config
from tinyllm.safetensors_file import SafetensorsFile
from tinyllm.serving.templates import read_template
from tinyllm.text_input import encodable
from tinyllm.tokenizer.byte_level import JSON_NAME
from tinyllm.tokenizer.codec import MODEL_NAME
from tinyllm.tokenizer.opening import open_tokenizer

MOST_DEPTH = 6
"""Levels of folders below the folder that are searched."""
MOST_FOLDERS, MOST_ENTRIES, MOST_FOUND = 5_000, 10_000, 500
"""Folders that one search opens, entries of one folder that it reads, and places of one kind that it lists."""
MOST_SECONDS = 5.0
"""Time of one search; what it has found by then counts."""
FRESH_SECONDS = 3.0
"""Shortest time between two searches: a folder may grow while another machine writes into it."""
PAUSE = 5
"""Shortest time between two searches, in times of the last one."""
INDEX_NAME = "model.safetensors.index.json"
RUN_LOG, RUN_CONFIG = "metrics.jsonl", "config.toml"
STAMPED = (storage.MANIFEST_NAME, CONFIG_NAME, WEIGHTS_NAME, MODEL_NAME, JSON_NAME)
"""Files whose change is a reason to read facts again."""
SKIPPED = frozenset({"checkpoints", "node_modules", "__pycache__"})
"""Folders that are not searched, beside those whose names begin with a dot."""


@dataclass(frozen=True)
class Item:
    """One run, model, set of shards or tokenizer."""

    id: str
    name: str
    path: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The fields that the page shows, beside id and name."""

    def fields(self) -> dict[str, Any]:
        """The object of the route."""
        return {"id": self.id, "name": self.name, **self.facts}


@dataclass(frozen=True)
class Catalogue:
    """The places of a folder by id, each kind in the order of names."""

    runs: Mapping[str, Item]
    models: Mapping[str, Item]
    shards: Mapping[str, Item]
    tokenizers: Mapping[str, Item]
    is_whole: bool = True
    """Whether the search reached every folder within its bounds."""


EMPTY = Catalogue({}, {}, {}, {})


class Library:
    """A folder that is searched again when somebody asks, at most every `FRESH_SECONDS`."""

    def __init__(
        self,
        folder: Path,
        extra_models: Mapping[str, Path] | None = None,
        taken_names: Collection[str] = (),
        served_paths: Collection[Path] = (),
    ) -> None:
        """`extra_models` are listed after those of the folder, by name.

        Models at `served_paths` are served already. `taken_names` are names of other models.
        """
        self.folder = folder.resolve()
        self._extra_models = dict(extra_models or {})
        self._taken_names, self._served_paths = frozenset(taken_names), frozenset(served_paths)
        self.catalogue = EMPTY
        self._facts: dict[Path, tuple[object, Any]] = {}
        self._next = 0.0
        """The time of the next search."""
        self._searching = threading.Lock()

    def search(self) -> Catalogue:
        """The places in the folder, a few seconds old at most. One thread searches; others get what is known."""
        if not self._searching.acquire(blocking=self._next == 0.0):
            return self.catalogue
        try:
            begin = time.monotonic()
            if begin >= self._next:
                self.catalogue = self._search()
                now = time.monotonic()
                self._next = now + max(FRESH_SECONDS, PAUSE * (now - begin))
            return self.catalogue
        finally:
            self._searching.release()

    def _search(self) -> Catalogue:
        found: dict[str, dict[str, Item]] = {"run": {}, "model": {}, "shards": {}, "tokenizer": {}}
        walk = _Walk(self.folder)
        kept: dict[Path, tuple[object, Any]] = {}
        for folder, names in walk:
            for kind in _kinds(names):
                item = self._describe(kind, folder, kept)
                if item is not None and len(found[kind]) < MOST_FOUND:
                    found[kind][item.id] = item
        self._facts = kept
        runs = {item.path: item.id for item in found["run"].values()}
        models = {item.id: item for item in self._models(found["model"].values(), runs, kept)}
        tokenizers = _with_own_tokenizers(found["tokenizer"], found["shards"])
        by_print = {item.facts["fingerprint"]: id for id, item in reversed(tokenizers.items())}
        shards = {
            id: _with(item, tokenizer=by_print.get(item.facts["fingerprint"])) for id, item in found["shards"].items()
        }
        return Catalogue(found["run"], models, shards, tokenizers, walk.is_whole)

    def _models(
        self, found: Iterable[Item], runs: Mapping[Path, str], kept: dict[Path, tuple[object, Any]]
    ) -> Iterator[Item]:
        """The models to list, each with the id of its run, under ids that no other model has."""
        taken = set(self._taken_names)
        for item in found:
            if item.path in self._served_paths or item.path.parent in self._served_paths:
                continue
            id = item.id if item.id not in taken else f"./{item.id}"
            taken.add(id)
            yield Item(id, item.name, item.path, {**item.facts, "run": runs.get(item.path.parent)})
        for name, path in self._extra_models.items():
            facts = self._facts_of("model", path, kept)
            if facts is not None and name not in taken:
                yield Item(name, name, path, {**facts, "run": None, "is_bundled": True})

    def _describe(self, kind: str, folder: Path, kept: dict[Path, tuple[object, Any]]) -> Item | None:
        """The item of a folder; None if it is damaged. Its facts are read again only if its files changed."""
        relative = folder.relative_to(self.folder).as_posix()
        name = folder.parent.name if kind == "model" and folder.name == "model" and relative != "." else folder.name
        item = Item(shown(relative), shown(name), folder)
        if kind == "run":
            return item
        facts = self._facts_of(kind, folder, kept)
        return None if facts is None else Item(item.id, item.name, folder, facts)

    def _facts_of(self, kind: str, folder: Path, kept: dict[Path, tuple[object, Any]]) -> dict[str, Any] | None:
        """The facts of a place, read again if its files changed; None if it is damaged."""
        stamp = [stamp_of(folder / name) for name in STAMPED]
        known = self._facts.get(folder)
        if known is None or known[0] != stamp:
            known = (stamp, _read_facts(kind, folder))
        kept[folder] = known
        found: dict[str, Any] | None = known[1]
        return found


class _Walk:
    """The folders below a folder with the names in them, within the bounds; each folder comes before those in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._end = time.monotonic() + MOST_SECONDS
        self.is_whole = True

    def __iter__(self) -> Iterator[tuple[Path, frozenset[str]]]:
        level = [self._folder]
        num_folders = 0
        for depth in range(MOST_DEPTH + 1):
            following: list[Path] = []
            for folder in level:
                num_folders += 1
                if num_folders > MOST_FOLDERS or time.monotonic() > self._end:
                    self.is_whole = False
                    return
                names, folders = self._list(folder)
                yield folder, names
                following += [folder / name for name in folders if depth < MOST_DEPTH]
            level = following

    def _list(self, folder: Path) -> tuple[frozenset[str], list[str]]:
        """The names of the files in `folder`, none if a link among them leads out, and of its folders to search."""
        files, folders = set(), []
        leads_out = False
        try:
            with os.scandir(folder) as entries:
                for number, entry in enumerate(entries):
                    if number >= MOST_ENTRIES:
                        self.is_whole = False
                        break
                    if _is_file(entry):
                        leads_out |= entry.is_symlink() and not self._stays(entry)
                        files.add(entry.name)
                    elif entry.is_dir(follow_symlinks=False) and not _is_hidden(entry.name):
                        folders.append(entry.name)
        except OSError:
            self.is_whole = False
        return frozenset() if leads_out else frozenset(files), sorted(folders)

    def _stays(self, entry: os.DirEntry[str]) -> bool:
        """Whether a link leads to a place inside the folder."""
        try:
            return Path(entry.path).resolve(strict=True).is_relative_to(self._folder)
        except (OSError, RuntimeError):
            return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file, or a link to one; a circle of links is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SKIPPED


def shown(name: str) -> str:
    """A name as the page shows it; bytes that are not UTF-8 as escapes."""
    return encodable(name)


def _kinds(names: frozenset[str]) -> Iterator[str]:
    """The kinds of a folder with files of these names, without a look into them, except for the manifest's kind."""
    if RUN_LOG in names or {RUN_CONFIG, storage.LOCK_NAME} <= names:
        yield "run"
    if {CONFIG_NAME, WEIGHTS_NAME} <= names or {CONFIG_NAME, INDEX_NAME} <= names:
        yield "model"
    elif storage.MANIFEST_NAME in names and any(name.endswith(".idx") for name in names):
        yield "shards"
    elif MODEL_NAME in names or JSON_NAME in names:
        yield "tokenizer"


def _read_facts(kind: str, folder: Path) -> dict[str, Any] | None:
    """The facts of a place; None if its files are damaged or of another kind, as those of a classifier."""
    try:
        return _READERS[kind](folder)
    except (TinyllmError, OSError, ValueError, KeyError, TypeError):
        return None


def _read_model(folder: Path) -> dict[str, Any] | None:
    config = read_config(folder)
    if (folder / storage.MANIFEST_NAME).is_file() and storage.read_manifest_text(folder).kind != "model":
        return None
    return {
        "parameters": size.num_parameters(config),
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "layers": config.num_layers,
        "heads": config.num_heads,
        "has_chat": read_template(folder) is not None,
        "is_whole": _has_whole_weights(folder),
        "changed": max(_time(folder / each) for each in (CONFIG_NAME, WEIGHTS_NAME, INDEX_NAME)),
    }


def _read_shards(folder: Path) -> dict[str, Any]:
    from tinyllm.shards.details import ShardDetails

    details = ShardDetails.model_validate(storage.read_manifest_text(folder, "shards").details)
    total = details.counts("train") + details.counts("validation")
    return {
        "num_documents": total.documents,
        "num_tokens": total.tokens,
        "vocab_size": details.vocab_size,
        "is_whole": _has_all_files(folder),
        "changed": _time(folder / storage.MANIFEST_NAME),
        "splits": [split for split in ("train", "validation") if details.counts(split).tokens],
        "fingerprint": details.tokenizer_fingerprint,
    }


def _has_whole_weights(folder: Path) -> bool:
    """Whether the files of a model have the sizes that its manifest or the header of its weights says."""
    if (folder / storage.MANIFEST_NAME).is_file():
        return _has_all_files(folder)
    try:
        if (folder / WEIGHTS_NAME).is_file():
            SafetensorsFile(folder / WEIGHTS_NAME)
    except (TinyllmError, OSError):
        return False
    return True


def _has_all_files(folder: Path) -> bool:
    """Whether each file that the manifest names is there with its size; contents are not read."""
    try:
        storage.read_manifest(folder)
    except (TinyllmError, OSError):
        return False
    return True


def _read_tokenizer(folder: Path) -> dict[str, Any]:
    tokenizer = open_tokenizer(folder)
    kind = "SentencePiece BPE" if (folder / MODEL_NAME).is_file() else "byte-level BPE"
    return {"vocab_size": tokenizer.vocab_size, "kind": kind, "fingerprint": tokenizer.fingerprint}


_READERS: dict[str, Callable[[Path], dict[str, Any] | None]] = {
    "model": _read_model,
    "shards": _read_shards,
    "tokenizer": _read_tokenizer,
}


def _with(item: Item, **facts: Any) -> Item:
    return Item(item.id, item.name, item.path, {**item.facts, **facts})


def _with_own_tokenizers(tokenizers: dict[str, Item], shards: dict[str, Item]) -> dict[str, Item]:
    """The tokenizers, and the copy in each set of shards whose tokenizer was not found elsewhere, under its id."""
    found = dict(tokenizers)
    for id, item in shards.items():
        if all(each.facts["fingerprint"] != item.facts["fingerprint"] for each in found.values()):
            facts = _read_facts("tokenizer", item.path)
            if facts is not None:
                found[id] = Item(id, item.name, item.path, facts)
    return found


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """Inode, size and time of a file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
