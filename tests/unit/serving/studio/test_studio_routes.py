"""Every route of the studio: its answer, its checks of key, Host and Origin, and hostile names and requests."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from studio_folder import sample, update, write_folder, write_lines, write_run
from studio_server import StudioApp
from tinyllm.errors import TinyllmError
from tinyllm.serving.security import access
from tinyllm.serving.studio.answers import as_json

GETS = {
    "library": "",
    "run": "?id=runs/first",
    "metrics": "?id=runs/first&points=10",
    "samples": "?id=runs/first",
    "shards": "?id=shards",
    "documents": "?id=shards&split=train&from=3&limit=2",
    "search": "?id=shards&split=train&text=fox&from=0",
    "statistics": "?id=shards&split=validation",
}
POSTS: dict[str, Any] = {
    "models/load": {"model": "runs/first/model"},
    "pieces": {"tokenizer": "shards", "text": "the fox"},
}
ROUTES = [("GET", path + query, None) for path, query in GETS.items()] + [
    ("POST", path, body) for path, body in POSTS.items()
]
EVENTS = ("GET", "run/events?id=runs/first", None)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "line\nbreak\r\nand tab\t",
    "quote'\"`${1}",
    "\u2028\u202e\u0000".replace("\u0000", ""),
    "</script><!--",
    "..",
    "%2e%2e%2f",
    "a b&c=d#e?f",
    "你好🦊",
]


@pytest.fixture(scope="module")
def folder(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory, module_model: Path) -> Path:
    """A folder with a run, its model, and shards."""
    return write_folder(tmp_path_factory.mktemp("studio") / "folder", tiny_shards, module_model)


@pytest.fixture(scope="module")
def module_model() -> Path:
    """The bundled model."""
    from tinyllm.model_dir import bundled_model

    return bundled_model()


@pytest.fixture(scope="module")
def studio(folder: Path) -> StudioApp:
    """The application without a key."""
    return StudioApp(folder)


@pytest.mark.parametrize(("method", "path", "body"), [*ROUTES, EVENTS], ids=lambda part: str(part)[:20])
def test_every_route_asks_for_key_host_and_origin(method: str, path: str, body: object, folder: Path) -> None:
    made = StudioApp(folder, access("127.0.0.1", "the-key", (), ()))
    path = f"/studio/api/{path}"
    key = {"Authorization": "Bearer the-key"}
    for wrong in ({}, {"Authorization": "Bearer the-keys"}, {"Authorization": "Basic the-key"}):
        assert made.call(method, path, body, **wrong).status_code == 401
    assert made.call(method, path, body, **key, Host="evil.example").status_code == 403
    assert made.call(method, path, body, **key, Origin="http://evil.example").status_code == 403
    assert made.loads == []
    if "events" not in path:
        response = made.call(method, path, body, **key, Origin="http://localhost:8080")
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers


def test_the_library_lists_all_with_their_facts(folder: Path) -> None:
    made = StudioApp(folder)
    found = made.call("GET", "/studio/api/library").json()
    assert found["folder"] == str(folder)
    assert found["is_whole"] is True
    (run,) = found["runs"]
    assert {"id", "name", "state", "step", "num_steps", "best_validation_loss", "is_finite", "updated"} == set(run)
    assert (run["id"], run["step"], run["num_steps"]) == ("runs/first", 50, 100)
    (model,) = found["models"]
    assert set(model) == {
        "id",
        "name",
        "parameters",
        "vocab_size",
        "context_length",
        "layers",
        "heads",
        "has_chat",
        "loaded",
        "run",
    }
    assert (model["id"], model["run"], model["loaded"]) == ("runs/first/model", "runs/first", False)
    (shards,) = found["shards"]
    assert set(shards) == {"id", "name", "num_documents", "num_tokens", "vocab_size", "splits"}
    assert found["tokenizers"] == [{"id": "shards", "name": "shards", "vocab_size": 320, "kind": "SentencePiece BPE"}]
    assert made.loads == []


def test_the_page_begins_with_the_newest_whole_model_of_a_run_and_with_whole_shards(
    folder: Path, tmp_path: Path
) -> None:
    def first() -> tuple[str, list[str]]:
        found = StudioApp(tmp_path).call("GET", "/studio/api/library").json()
        return found["first_model"], [model["id"] for model in found["models"]]

    shutil.copytree(folder / "runs" / "first", tmp_path / "b")
    shutil.copytree(tmp_path / "b" / "model", tmp_path / "a model of no run")
    shutil.copytree(folder / "shards", tmp_path / "a damaged shards")
    next((tmp_path / "a damaged shards").glob("train*.bin")).write_bytes(b"\1")
    shutil.copytree(folder / "shards", tmp_path / "shards")
    assert first()[0] == "b/model"
    shutil.copytree(tmp_path / "b", tmp_path / "a")
    os.utime(tmp_path / "a" / "model" / "config.json")
    assert first()[0] == "a/model", "the newest"
    weights = tmp_path / "a" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert first() == ("b/model", ["a model of no run", "b/model", "a/model"])
    (tmp_path / "a" / "model" / "manifest.json").unlink()
    assert first()[0] == "b/model"
    library = StudioApp(tmp_path).call("GET", "/studio/api/library").json()
    assert library["first_shards"] == "shards"
    assert [shards["id"] for shards in library["shards"]] == ["shards", "a damaged shards"]


def test_a_model_is_loaded_by_the_page_or_by_its_use(folder: Path) -> None:
    made = StudioApp(folder)
    name = "runs/first/model"

    def is_loaded() -> bool:
        (model,) = made.call("GET", "/studio/api/library").json()["models"]
        return bool(model["loaded"])

    assert made.call("POST", "/studio/api/models/load", {"model": name}).json() == {"model": name, "loaded": True}
    assert is_loaded()
    assert made.call("POST", "/v1/completions", {"model": name, "prompt": "Once"}).status_code == 200
    assert made.loads == [name]
    fresh = StudioApp(folder)
    answer = fresh.call("POST", "/v1/completions", {"prompt": "Once", "max_tokens": 2}).json()
    assert answer["model"] == name, "the first model of the folder is the default"
    assert [each["id"] for each in fresh.call("GET", "/v1/models").json()["data"]] == [name]
    assert fresh.call("GET", f"/v1/models/{name}").json()["id"] == name
    error = fresh.call("POST", "/studio/api/models/load", {"model": "runs/first"}).json()["error"]
    assert error["code"] == "model_not_found"


def test_documents_have_tokens_and_a_number(studio: StudioApp) -> None:
    found = studio.call("GET", "/studio/api/documents?id=shards&from=3&limit=2").json()
    assert [each["index"] for each in found["documents"]] == [3, 4]
    first = found["documents"][0]
    assert len(first["tokens"]) == first["num_tokens"]
    assert first["tokens"][0]["piece"] == "<s>"
    assert "Once upon a time" in "".join(token["piece"] for token in first["tokens"])
    shards = studio.call("GET", "/studio/api/shards?id=shards").json()
    assert shards["tokenizer"] == "shards"
    assert shards["splits"]["train"]["num_documents"] == found["num_documents"]


def test_pieces_of_a_text_are_those_of_the_tokenizer(studio: StudioApp) -> None:
    text = "the fox ü 🦊"
    found = studio.call("POST", "/studio/api/pieces", {"tokenizer": "shards", "text": text}).json()
    assert bytes.fromhex("".join(token["bytes"] for token in found["tokens"])).decode() == f" {text}"
    assert found["characters_per_token"] == pytest.approx(len(text) / len(found["tokens"]))
    assert found["vocab_size"] == 320
    empty = studio.call("POST", "/studio/api/pieces", {"tokenizer": "shards", "text": ""}).json()
    assert (empty["tokens"], empty["bytes_per_token"]) == ([], None)
    studio.loads.clear()
    by_model = studio.call("POST", "/studio/api/pieces", {"model": "runs/first/model", "text": text}).json()
    assert by_model["vocab_size"] == 2048
    assert studio.loads == []


WRONG = [
    ("run", 400),
    ("run?id=", 404),
    ("run?id=runs", 404),
    ("run?id=../folder/runs/first", 404),
    ("run?id=/etc", 404),
    ("run?id=runs/first%00", 404),
    ("run?id=runs/first&id=x", 404),
    ("run?id=shards", 404),
    ("run?id=" + "x" * 5_000, 400),
    ("run?id=runs/first&more=1", 400),
    ("metrics?id=runs/first&points=1", 400),
    ("metrics?id=runs/first&points=4001", 400),
    ("metrics?id=runs/first&points=x", 400),
    ("metrics?id=runs/first&from_step=-1", 400),
    ("metrics?id=runs/first&to_step=1e400", 400),
    ("metrics?id=runs/first&from_step=9007199254740992", 400),
    ("samples?id=runs/first&limit=101", 400),
    ("samples?id=runs/first&limit=0", 400),
    ("run/events?id=runs/first&cursor=1", 400),
    ("run/events?id=runs/second", 404),
    ("shards?id=runs/first", 404),
    ("documents?id=shards&split=test", 400),
    ("documents?id=shards&limit=51", 400),
    ("documents?id=shards&from=-1", 400),
    ("search?id=shards", 400),
    ("search?id=shards&text=", 400),
    ("search?id=shards&text=" + "x" * 201, 400),
    ("nothing", 404),
]


@pytest.mark.parametrize(("path", "status"), WRONG)
def test_wrong_requests_are_told_in_openai_s_form(path: str, status: int, studio: StudioApp) -> None:
    response = studio.call("GET", f"/studio/api/{path}")
    assert response.status_code == status
    assert set(response.json()["error"]) - {"values"} == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("models/load", {}, 400),
        ("models/load", {"model": "x"}, 404),
        ("models/load", {"model": 3}, 400),
        ("models/load", {"model": "../x"}, 404),
        ("pieces", {"text": "a"}, 400),
        ("pieces", {"text": "a", "tokenizer": "shards", "model": "x"}, 400),
        ("pieces", {"text": "a", "tokenizer": "runs/first"}, 404),
        ("pieces", {"text": "a", "model": "shards"}, 404),
        ("pieces", {"text": "a" * 20_001, "tokenizer": "shards"}, 400),
        ("pieces", {"text": "\ud800", "tokenizer": "shards"}, 400),
        ("pieces", {"text": "a", "tokenizer": "shards", "more": 1}, 400),
    ],
)
def test_wrong_bodies_are_told_in_openai_s_form(path: str, body: object, status: int, studio: StudioApp) -> None:
    response = studio.call("POST", f"/studio/api/{path}", body)
    assert response.status_code == status, response.text
    assert set(response.json()["error"]) - {"values"} == {"message", "type", "param", "code"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
def test_hostile_names_are_found_by_their_ids_and_are_safe(tmp_path: Path) -> None:
    names = [name for name in HOSTILE if "/" not in name and name != ".."]
    for name in names:
        write_run(tmp_path / name)
    shutil.copytree(tmp_path / names[0], os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe<b>"))
    made = StudioApp(tmp_path)
    response = made.call("GET", "/studio/api/library")
    runs = response.json()["runs"]
    assert {run["id"] for run in runs} == {*names, "\\udcff\\udcfe<b>"}
    for run in runs:
        for route in ("run", "metrics", "samples"):
            answer = made.call("GET", f"/studio/api/{route}?id={quote(run['id'], safe='')}")
            assert answer.status_code == 200
            answer.content.decode()
    assert response.headers["content-type"] == "application/json"


def test_hostile_texts_travel_unchanged_as_json(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    texts = [*HOSTILE, "\ud800 alone", "\x00"]
    write_lines(run / "samples.jsonl", [sample(10) | {"text": text, "prompt": text} for text in texts])
    write_lines(run / "stops.jsonl", [{"step": 3, "reason": HOSTILE[0]}, {"step": 4, "reason": {"a": 1}}])
    write_lines(run / "metrics.jsonl", [update(60) | {"loss": "<b>", "grad_norm": [1]}], "a")
    (run / "config.toml").write_text(f"[training]\nname = {json.dumps(HOSTILE[1])}\nday = 2026-01-01\nx = nan\n")
    made = StudioApp(tmp_path)
    found = made.call("GET", "/studio/api/samples?id=run").json()
    assert [each["text"] for each in found["samples"]] == [*HOSTILE, "? alone", "\x00"]
    described = made.call("GET", "/studio/api/run?id=run").json()
    assert described["marks"][0]["text"] == HOSTILE[0]
    assert described["config"]["training"] == {"name": HOSTILE[1], "day": "2026-01-01", "x": None}
    assert made.call("GET", "/studio/api/metrics?id=run").json()["training"]["loss"][-1] is None


def test_json_of_any_value() -> None:
    value = {"a": [1.5, float("nan"), float("inf")], "b": "\udcff", "c": {"d": -float("inf")}, "e": (1,)}
    assert json.loads(as_json(value)) == {"a": [1.5, None, None], "b": "?", "c": {"d": None}, "e": [1]}


def test_a_damaged_place_is_an_error_of_the_request(tmp_path: Path, tiny_shards: Path) -> None:
    shutil.copytree(tiny_shards, tmp_path / "shards")
    made = StudioApp(tmp_path)
    assert made.call("GET", "/studio/api/library").status_code == 200
    for path in (tmp_path / "shards").glob("*.bin"):
        path.unlink()
    response = made.call("GET", "/studio/api/shards?id=shards")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unreadable")


def test_reading_is_bounded_to_a_few_threads(studio: StudioApp) -> None:
    running = most = 0

    def read() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        import time

        time.sleep(0.02)
        running -= 1

    async def test() -> None:
        studio.studio._reading = None
        await asyncio.gather(*(studio.studio.read(read) for _ in range(20)))
        studio.studio._reading = None

    asyncio.run(test())
    assert most == 2


def test_without_a_folder_the_page_has_the_models_alone() -> None:
    from serving_stub import call

    found = call("GET", "/studio/api/library").json()
    assert (found["folder"], found["runs"], found["shards"], found["tokenizers"]) == (None, [], [], [])
    (model,) = found["models"]
    assert (model["id"], model["loaded"], model["layers"], model["run"]) == ("storybook", True, 5, None)
    assert call("GET", "/studio/api/run?id=x").status_code == 404


def test_errors_of_the_library_keep_their_status(studio: StudioApp) -> None:
    def fail() -> None:
        raise TinyllmError("a bad file")

    async def test() -> None:
        studio.studio._reading = None
        with pytest.raises(Exception, match="this cannot be read: a bad file"):
            await studio.studio.read(fail)
        studio.studio._reading = None

    asyncio.run(test())
