"""Writes a model as one HTML page. The tokenizer's rules that a page cannot compute are refused by name."""

import hashlib
import json
from typing import IO, Any

import numpy as np

from tinyllm.config import ModelConfig
from tinyllm.errors import InputError
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.gguf_byte_level import SPLITTERS, find_splitter
from tinyllm.exchange.html.page import build_page, page_bytes
from tinyllm.exchange.html.weights import NumberKind, pack, packed_bytes
from tinyllm.model.rope_scaling import scale_frequencies
from tinyllm.model.size import num_parameters
from tinyllm.tokenizer.byte_level import BYTES, JSON_NAME, ByteLevelTokenizer
from tinyllm.tokenizer.codec import Tokenizer

LIMIT_BYTES = 100_000_000
WEIGHTS_NAME = "model.safetensors"
DEFAULT_TITLE = "A small language model"


def write_html(
    file: IO[bytes], model: ForeignModel, kind: NumberKind, title: str = DEFAULT_TITLE, prompt: str = ""
) -> None:
    """Writes the page of `model`, with matrices of `kind`, this title, and a text that the prompt begins with.

    Raises InputError as `check_html`.
    """
    check_html(model, kind)
    assert model.tokenizer is not None, "an export has a tokenizer"
    files = {**model.tokenizer.files, WEIGHTS_NAME: pack(model, kind)}
    info = {
        "title": title,
        "prompt": prompt,
        "numbers": kind,
        "num_parameters": num_parameters(model.config),
        "config": model.config.model_dump(),
        "rope_frequencies": rope_frequencies(model.config),
        "tokenizer": _describe(model.tokenizer),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    file.write(build_page(title, info, files))


def check_html(model: ForeignModel, kind: NumberKind) -> None:
    """Raises InputError if the page would be too large, or if it cannot compute the tokenizer's ids."""
    assert model.tokenizer is not None, "an export has a tokenizer"
    _describe(model.tokenizer)
    size = html_bytes(model, kind)
    if size <= LIMIT_BYTES:
        return
    smaller = html_bytes(model, "int8")
    message = f"the page would have {size / 1e6:,.0f} MB, more than the {LIMIT_BYTES / 1e6:.0f} MB that phones can open"
    if smaller <= LIMIT_BYTES:
        raise InputError(message, hint=f"with 8-bit weights it has {smaller / 1e6:,.0f} MB: use `target=html`")
    raise InputError(message, hint="train a smaller model, or use `target=gguf-q8` for other programs")


def html_bytes(model: ForeignModel, kind: NumberKind) -> int:
    """An upper limit of the page's size, by arithmetic on the shapes."""
    assert model.tokenizer is not None, "an export has a tokenizer"
    tokenizer = {name: len(content) for name, content in model.tokenizer.files.items()}
    return page_bytes({**tokenizer, WEIGHTS_NAME: packed_bytes(model.config, kind)})


def rope_frequencies(config: ModelConfig) -> list[float]:
    """The scaled rotary frequencies (C/2), float32, in radians a token."""
    exponents = np.arange(0, config.head_size, 2, dtype=np.float32) / config.head_size
    frequencies = (1.0 / config.rope_theta**exponents).astype(np.float32)
    return [float(frequency) for frequency in scale_frequencies(frequencies, config)]


def _describe(tokenizer: Tokenizer) -> dict[str, Any]:
    """The facts that the page's tokenizer needs beside its file. Raises InputError for a rule that it lacks."""
    return {
        "rule": _splitting_rule(tokenizer) if isinstance(tokenizer, ByteLevelTokenizer) else None,
        "bos_id": tokenizer.bos_id,
        "begins_with_bos": tokenizer.begins_with_bos,
        "end_ids": sorted(tokenizer.end_ids),
    }


def _splitting_rule(tokenizer: ByteLevelTokenizer) -> str:
    """The name of the rule that splits a text into words."""
    content = json.loads(tokenizer.files[JSON_NAME])
    rule = find_splitter(content)
    model, added = content["model"], content.get("added_tokens") or []
    strips = {
        f"{flag} of the added token {token['content']!r:.40}": token.get(flag) and not token.get("special")
        for token in added
        for flag in ("lstrip", "rstrip", "single_word")
    }
    lacking = {
        f"a rule of splitting other than those of {', '.join(SPLITTERS)}": rule is None,
        "continuing_subword_prefix": model.get("continuing_subword_prefix"),
        "end_of_word_suffix": model.get("end_of_word_suffix"),
        "no token for some bytes": not BYTES.keys() <= model["vocab"].keys(),
        **strips,
    }
    for option, is_set in lacking.items():
        if is_set:
            raise InputError(f"{tokenizer.name} has {option}, which a page cannot compute; export it as safetensors")
    assert rule is not None, "a missing rule is refused"
    return rule
