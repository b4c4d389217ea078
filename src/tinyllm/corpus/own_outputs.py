"""Finds the folders that tinyllm wrote: models, tokenizers, shards and runs, whose files are no texts to learn from.

texts/  a.txt  b.txt  runs/mine/plan.json  tok/manifest.json       only a.txt and b.txt are texts
"""

from collections.abc import Collection
from pathlib import Path

from tinyllm import storage
from tinyllm.errors import FormatError, TinyllmError
from tinyllm.json_file import read_json_object

KINDS = ("model", "classifier", "tokenizer", "shards", "part", "checkpoint")
"""Kinds of a manifest; a folder of downloaded texts has another."""
PLAN_NAME, CONFIG_NAME = "plan.json", "config.toml"
FIT_KIND = "tinyllm fit"
"""The kind of a plan."""


def is_own_output(folder: Path, names: Collection[str]) -> bool:
    """Whether tinyllm wrote `folder`, which has files of these `names`."""
    if storage.MANIFEST_NAME in names and _manifest_kind(folder) in KINDS:
        return True
    if CONFIG_NAME in names and storage.has_lock_text(folder / storage.LOCK_NAME):
        return True
    return PLAN_NAME in names and _plan_kind(folder) == FIT_KIND


def _manifest_kind(folder: Path) -> str | None:
    try:
        return storage.read_manifest_text(folder).kind
    except TinyllmError:
        return None  # another program's manifest


def _plan_kind(folder: Path) -> object:
    try:
        return read_json_object(folder / PLAN_NAME).get("kind")
    except (FormatError, OSError):
        return None  # a text of that name
