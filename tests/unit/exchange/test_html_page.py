"""Tests that a page is closed: one script and one style by hash, data that cannot end its element, no addresses."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.html.page import FOLDER, build_page, join_modules, json_element
from tinyllm.exchange.write import export_model

HOSTILE = [
    "</script><script>window.hit = 1</script>",
    "<!--<script>",
    "-->",
    "</title><img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "\u2028\u2029]]>&lt;",
    "{{files}} {{engine}}",
    "'\"`${1}",
    "</style>",
    "&#60;/script&#62;",
]


class Elements(HTMLParser):
    """The elements of a page with their text, in order."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.is_inside = False
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))
        self.is_inside = True

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = False

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            tag, attributes, text = self.found[-1]
            self.found[-1] = tag, attributes, text + data


@pytest.fixture(scope="module")
def page(mild_model: ForeignModel, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("page") / "story.html"
    return export_model(mild_model, "html", path).path.read_bytes()


def test_one_script_and_one_style_are_allowed_by_their_hashes(page: bytes) -> None:
    elements = Elements(page).found
    (policy,) = [
        attributes["content"] or ""
        for _, attributes, _ in elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    running = [text for tag, attributes, text in elements if tag == "script" and "type" not in attributes]
    running += [text for tag, _, text in elements if tag == "style"]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running]
    assert len(digests) == 2
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_nothing_in_the_page_names_another_place(page: bytes) -> None:
    for tag, attributes, text in Elements(page).found:
        assert not {"src", "action", "srcset", "style"} & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("href", "data:,") == "data:,"
        if "data-file" not in attributes:
            assert "://" not in text, tag


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_stay_in_their_elements(text: str, mild_model: ForeignModel, tmp_path: Path) -> None:
    honest = export_model(mild_model, "html", tmp_path / "a.html", title="a", prompt="b").path.read_bytes()
    hostile = export_model(mild_model, "html", tmp_path / "b.html", title=text, prompt=text).path.read_bytes()
    names = [(tag, attributes.keys()) for tag, attributes, _ in Elements(honest).found]
    assert [(tag, attributes.keys()) for tag, attributes, _ in Elements(hostile).found] == names
    (info,) = [found for _, attributes, found in Elements(hostile).found if attributes.get("id") == "info"]
    assert (json.loads(info)["title"], json.loads(info)["prompt"]) == (text, text)


def test_data_cannot_end_a_script() -> None:
    assert json.loads(json_element(HOSTILE)) == HOSTILE
    assert not re.search(r"[<>&]|[^\x20-\x7e]", json_element(HOSTILE))
    page = build_page("x", {}, {"a": b"</script>"})
    assert page.count(b"</script>") == 4  # description, engine, page, and the file


@pytest.mark.parametrize("entry", ["worker.js", "page.js"])
def test_modules_are_joined_after_their_imports(entry: str) -> None:
    script = join_modules(entry)
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    declared = re.findall(r"^(?:async )?(?:const|let|class|function\*?) (\w+)", script, re.MULTILINE)
    declared += [name for line in re.findall(r"^const (\w.*, \w.*);$", script, re.MULTILINE) for name in names_of(line)]
    assert len(set(declared)) >= 10
    assert len(names := [name for name in declared if declared.count(name) > 1]) == 0, names


def names_of(declarations: str) -> list[str]:
    """The second and later names of `const A = 1, B = 2;`."""
    return re.findall(r", (\w+) =", declarations)


def test_every_module_is_used() -> None:
    used = join_modules("worker.js") + join_modules("page.js")
    for path in FOLDER.glob("*.js"):
        first_line = path.read_text(encoding="utf-8").splitlines()[1]
        assert first_line in used, path.name
