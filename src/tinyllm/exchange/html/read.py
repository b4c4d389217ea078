"""Reads the model back out of a page that `write` made. The page's own scripts are not run, and not read."""

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any, get_args

from tinyllm.errors import FormatError
from tinyllm.exchange.foreign import ForeignModel, check_tensors, make_config
from tinyllm.exchange.html.page import ELEMENT_END, FILE_START, INFO_START, START
from tinyllm.exchange.html.weights import NumberKind, unpack
from tinyllm.exchange.html.write import LIMIT_BYTES, WEIGHTS_NAME
from tinyllm.json_file import parse_json_object
from tinyllm.tokenizer.opening import tokenizer_of_files


def read_html(path: Path) -> ForeignModel:
    """The model in a page, with its tokenizer. Raises FormatError if the page is damaged or not one of tinyllm's."""
    if path.stat().st_size > LIMIT_BYTES:
        raise FormatError(f"{path} has {path.stat().st_size} bytes, expected at most {LIMIT_BYTES}")
    content = path.read_bytes()
    if not content.startswith(START):
        raise FormatError(f"{path} is a web page, but not one of a model that tinyllm wrote")
    info = parse_json_object(_element(content, INFO_START, path), f"the description in {path}")
    sums, values, rules = (_object(info, key, path) for key in ("sha256", "config", "tokenizer"))
    kind = _number_kind(info.get("numbers"), path)
    files = {name: _file(content, name, sum, path) for name, sum in sums.items()}
    if WEIGHTS_NAME not in files or len(files) == 1:
        raise FormatError(f"{path} has no weights or no tokenizer: its files are {', '.join(files)!r:.80}")
    config = make_config(path, **values)
    tensors = unpack(files.pop(WEIGHTS_NAME), config, kind, path)
    check_tensors(config, tensors, path)
    tokenizer = tokenizer_of_files(files, f"the tokenizer in {path}")
    end_ids = frozenset(_ids(rules.get("end_ids"), tokenizer.vocab_size, path))
    return ForeignModel(config, tensors, tokenizer.with_rules(end_ids=end_ids), f"HTML page, {kind}", end_ids)


def _object(info: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = info.get(key)
    if not isinstance(value, dict):
        raise FormatError(f"{path}: {key} is {value!r:.60}, expected an object")
    return value


def _number_kind(value: Any, path: Path) -> NumberKind:
    for kind in get_args(NumberKind):
        if value == kind:
            found: NumberKind = kind
            return found
    raise FormatError(f"{path}: numbers is {value!r:.60}, expected {' or '.join(get_args(NumberKind))}")


def _ids(value: Any, vocab_size: int, path: Path) -> list[int]:
    if not isinstance(value, list) or not all(type(id) is int and 0 <= id < vocab_size for id in value):
        raise FormatError(f"{path}: end_ids is {value!r:.60}, expected a list of token ids")
    return value


def _file(content: bytes, name: str, sha256: Any, path: Path) -> bytes:
    """The bytes of an embedded file. Raises FormatError if they do not have this SHA-256."""
    text = _element(content, FILE_START.format(name).encode(errors="replace"), path)
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise FormatError(f"{path}: its {name!r:.60} is not base64: {error}") from None
    if hashlib.sha256(found).hexdigest() != sha256:
        raise FormatError(f"{path}: its {name!r:.60} is damaged: it has another SHA-256 than the description says")
    return found


def _element(content: bytes, start: bytes, path: Path) -> bytes:
    """The content of the one element that begins with `start`."""
    begin = content.find(start)
    end = content.find(ELEMENT_END, begin)
    if begin < 0 or end < 0 or content.find(start, begin + 1) >= 0:
        raise FormatError(f"{path} does not hold {start.decode(errors='replace')!r:.80} once, with its end")
    return content[begin + len(start) : end]
