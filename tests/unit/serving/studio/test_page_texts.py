"""The page's texts in both languages, and what it says for the server's errors; the routes that serve it alone."""

import re
from pathlib import Path

from fastapi import FastAPI

from serving_stub import call, served
from tinyllm.serving.limits import Limits
from tinyllm.serving.models import Models
from tinyllm.serving.studio.page_files import FOLDER
from tinyllm.serving.studio.routes import add_studio
from tinyllm.serving.studio.site import Studio

ROOT = Path(__file__).parents[4]
TEXT = re.compile(r'^    "([\w.]+)": "((?:[^"\\]|\\.)*)",?$', re.MULTILINE)
HALF_WIDTH = re.compile(r"[\u4e00-\u9fff”][,:;!?()]|[,:;!?()][\u4e00-\u9fff“]|[\u4e00-\u9fff]\.$")
UNMET = {"head_too_large", "missing_required_parameter", "nested_too_deep", "unknown_parameter"}
"""Codes for requests that the page never sends."""


def texts(language: str) -> dict[str, str]:
    """Key -> text of a language."""
    return dict(TEXT.findall((FOLDER / f"texts/{language}.js").read_text("utf-8")))


def test_both_languages_have_every_text_with_the_same_values() -> None:
    english, chinese = texts("en"), texts("zh")
    assert len(english) > 250
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", chinese[key])), key


def test_chinese_texts_have_signs_of_full_width() -> None:
    assert {key: text for key, text in texts("zh").items() if HALF_WIDTH.search(text)} == {}


def test_the_page_has_a_text_for_every_code_of_the_server() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "src/tinyllm/serving").rglob("*.py"))
    codes = set(re.findall(r'code="(\w+)"', sources))
    known = set(
        re.findall(r"^    (\w+): \"server\.\w+\",$", (FOLDER / "parts/errors.js").read_text("utf-8"), re.MULTILINE)
    )
    assert known == codes - UNMET
    assert codes >= UNMET


def test_the_texts_of_codes_name_values_that_come_with_them() -> None:
    keys = dict(
        re.findall(r"^    (\w+): \"(server\.\w+)\",$", (FOLDER / "parts/errors.js").read_text("utf-8"), re.MULTILINE)
    )
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "src/tinyllm/serving").rglob("*.py"))
    for code, key in keys.items():
        for name in re.findall(r"\{(\w+)\}", texts("en")[key]):
            assert f'"{name}":' in sources, (code, name)


def test_routes_of_the_page_are_documented_by_name_and_left_out_of_the_public_schema() -> None:
    app = FastAPI()
    add_studio(app, Studio(Models([served()]), Limits()))
    paths = {path for route in app.routes if (path := getattr(route, "path", "")).startswith("/studio/api/")}
    documented = set(re.findall(r"`(/studio/api/[\w/]+)`", (ROOT / "docs/studio.md").read_text("utf-8")))
    assert paths == documented
    public = call("GET", "/openapi.json").json()["paths"]
    assert [path for path in public if path.startswith("/studio")] == []
    assert "/v1/completions" in public
