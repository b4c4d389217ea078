"""The search of a folder: what it finds, what it leaves out, and its bounds."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio_folder import write_folder, write_run
from tinyllm.serving.studio import library as library_module
from tinyllm.serving.studio.library import Catalogue, Library


def search(folder: Path) -> Catalogue:
    return Library(folder).search()


def test_every_kind_is_found(tmp_path: Path, tiny_shards: Path, make_model_dir: Callable[..., Path]) -> None:
    model = make_model_dir("source")
    folder = write_folder(tmp_path / "folder", tiny_shards, model)
    found = search(folder)
    assert found.is_whole
    assert list(found.runs) == ["runs/first"]
    (item,) = found.models.values()
    assert (item.id, item.name, item.facts["run"]) == ("runs/first/model", "first", "runs/first")
    assert (item.facts["layers"], item.facts["heads"], item.facts["vocab_size"]) == (2, 4, 320)
    assert item.facts["has_chat"] is False
    (shards,) = found.shards.values()
    assert shards.facts["splits"] == ["train", "validation"]
    assert shards.facts["num_documents"] == 200
    assert shards.facts["tokenizer"] == "shards", "the copy in the shards is the only tokenizer"
    assert found.tokenizers["shards"].facts["vocab_size"] == 320


def test_a_folder_that_is_itself_a_run_or_a_model(tmp_path: Path, make_model_dir: Callable[..., Path]) -> None:
    run = write_run(tmp_path / "run")
    shutil.copytree(make_model_dir("source"), run / "model")
    found = search(run)
    assert list(found.runs) == ["."]
    assert [(item.id, item.name, item.facts["run"]) for item in found.models.values()] == [("model", "run", ".")]
    assert list(search(run / "model").models) == ["."]


def test_models_that_are_served_by_name_are_not_listed_twice(
    tmp_path: Path, make_model_dir: Callable[..., Path]
) -> None:
    model = make_model_dir("mine")
    shutil.copytree(model, tmp_path / "other")
    library = Library(tmp_path, {"mine": model, "extra": model}, taken_names=["other", "mine"], served_paths=[model])
    assert list(library.search().models) == ["./other", "extra"]


def test_no_link_is_followed_out_of_the_folder(tmp_path: Path, make_model_dir: Callable[..., Path]) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    write_run(outside / "run")
    shutil.copytree(make_model_dir("source"), outside / "model")
    folder.mkdir()
    (folder / "run").symlink_to(outside / "run")
    (folder / "all").symlink_to(outside)
    (folder / "copy").mkdir()
    for path in (outside / "model").iterdir():
        (folder / "copy" / path.name).symlink_to(path)
    assert search(folder) == Catalogue({}, {}, {}, {})
    shutil.rmtree(folder / "copy")
    shutil.copytree(outside / "model", folder / "blobs")
    (folder / "copy").mkdir()
    for path in (folder / "blobs").iterdir():
        (folder / "copy" / path.name).symlink_to(path)
    assert list(search(folder).models) == ["blobs", "copy"], "links inside the folder are followed"


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert list(search(tmp_path).runs) == ["run"]


def test_hidden_damaged_and_foreign_places_are_left_out(tmp_path: Path, make_model_dir: Callable[..., Path]) -> None:
    model = make_model_dir("source")
    write_run(tmp_path / ".hidden" / "run")
    write_run(tmp_path / "checkpoints" / "run")
    for name, text in (("cut", "{"), ("wrong", '{"model_type": "gpt2"}'), ("list", "[]"), ("deep", "[" * 100_000)):
        shutil.copytree(model, tmp_path / name)
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "manifest.json").write_text("{}")
    (tmp_path / "empty" / "train.idx").write_text("")
    (tmp_path / "empty" / "tokenizer.model").write_text("x")
    if hasattr(os, "mkfifo"):
        (tmp_path / "pipe").mkdir()
        os.mkfifo(tmp_path / "pipe" / "metrics.jsonl")
        os.mkfifo(tmp_path / "pipe" / "tokenizer.model")
    found = search(tmp_path)
    assert (list(found.models), dict(found.runs), dict(found.shards)) == (["source"], {}, {})


def test_the_search_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        write_run(tmp_path / f"run{number:02}")
    deep = tmp_path.joinpath(*"abcdefgh")
    write_run(deep / "run")
    assert len(search(tmp_path).runs) == 30
    monkeypatch.setattr(library_module, "MOST_FOUND", 7)
    assert len(search(tmp_path).runs) == 7
    monkeypatch.setattr(library_module, "MOST_FOLDERS", 5)
    found = search(tmp_path)
    assert (len(found.runs), found.is_whole) == (3, False)
    monkeypatch.setattr(library_module, "MOST_ENTRIES", 2)
    assert not search(tmp_path).is_whole
    monkeypatch.setattr(library_module, "MOST_SECONDS", -1.0)
    assert not search(tmp_path).is_whole


def test_a_folder_that_grows_is_searched_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path)
    assert list(library.search().runs) == []
    write_run(tmp_path / "run")
    assert list(library.search().runs) == [], "the last search is fresh"
    time.sleep(library_module.FRESH_SECONDS)
    assert list(library.search().runs) == ["run"]


def test_facts_are_read_again_only_if_files_change(
    tmp_path: Path, make_model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model_dir("model")
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(library_module, "PAUSE", 0)
    library = Library(model.parent)
    first = library.search().models["model"]
    reads: list[Path] = []
    read = library_module._READERS["model"]

    def read_and_count(path: Path) -> Any:
        reads.append(path)
        return read(path)

    monkeypatch.setitem(library_module._READERS, "model", read_and_count)
    assert library.search().models["model"] == first
    assert reads == []
    os.utime(model / "config.json")
    library.search()
    assert reads == [model]
