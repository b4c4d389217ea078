"""The text of a page: its style and modules joined into one file, and a policy that lets nothing else run or load.

Data is written where it cannot end its element: text as HTML entities, JSON without `<`, bytes as base64.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
START = b"<!doctype html>\n<!-- tinyllm page, format 1 -->\n"
"""The first bytes of every page."""
INFO_START = b'<script type="application/json" id="info">'
FILE_START = '<script type="application/octet-stream" data-file="{}">'
ELEMENT_END = b"</script>"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def build_page(title: str, info: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The whole page. `info` describes the model to the modules; `files` are its tokenizer and weights, by name."""
    style, script = (FOLDER / "style.css").read_text(encoding="utf-8"), join_modules("page.js")
    contents = {
        "policy": _policy(script, style),
        "title": html.escape(title),
        "style": style,
        "engine": join_modules("worker.js"),
        "page": script,
        "info": json_element(info),
        "files": "\n".join(file_element(name, content) for name, content in files.items()),
    }
    template = (FOLDER / "template.html").read_text(encoding="utf-8")
    return START + _PLACEHOLDER.sub(lambda found: contents[found[1]], template).encode()


@cache
def join_modules(entry: str) -> str:
    """The module `entry` after all that it imports, as one script: no name is declared by two of them."""
    texts: dict[str, str] = {}
    _collect(entry, texts)
    script = "\n".join(texts.values())
    assert not re.search(r"</script|<!--", script), "a script element would end there, or hide its end"
    return script


def json_element(value: object) -> str:
    """JSON that is safe inside a script element: ASCII, without `<`, `>` and `&`."""
    text = json.dumps(value)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def file_element(name: str, content: bytes) -> str:
    """A script element that no browser runs, with `content` as base64."""
    return FILE_START.format(name) + base64.b64encode(content).decode() + ELEMENT_END.decode()


def page_bytes(sizes: Mapping[str, int]) -> int:
    """The size of a page with files of these sizes; the rest of it counts with an upper limit of 256 KiB."""
    return 2**18 + sum(4 * -(-size // 3) for size in sizes.values())


def _collect(name: str, texts: dict[str, str]) -> None:
    """Adds the text of a module to `texts` after those of its imports, without imports and exports."""
    source = (FOLDER / name).read_text(encoding="utf-8")
    for imported in _IMPORT.findall(source):
        if imported not in texts:
            _collect(imported, texts)
    texts[name] = re.sub(r"^export ", "", _IMPORT.sub("", source), flags=re.MULTILINE)


def _policy(script: str, style: str) -> str:
    """The Content-Security-Policy: this script, this style, a worker made by the page, and no request at all."""
    rules = {
        "default-src": "'none'",
        "script-src": _source(script),
        "style-src": _source(style),
        "worker-src": "blob:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
