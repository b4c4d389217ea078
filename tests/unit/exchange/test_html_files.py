"""Tests that a page gives its model back, and that damage, size and unknown rules are refused by name."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyllm.config import ModelConfig
from tinyllm.errors import ArtifactError, FormatError, InputError, UsageError
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.gguf_blocks import narrow_to_bfloat16
from tinyllm.exchange.html.read import read_html
from tinyllm.exchange.html.weights import NumberKind, pack, packed_bytes
from tinyllm.exchange.html.write import check_html, html_bytes
from tinyllm.exchange.llama2c import quantize
from tinyllm.exchange.write import export_model
from tinyllm.safetensors_file import SafetensorsFile, widen_bfloat16
from tinyllm.tokenizer.byte_level import BYTES, ByteLevelTokenizer

NAME = "model.layers.1.mlp.down_proj.weight"


def test_weights_are_rounded_as_they_say(mild_model: ForeignModel, tmp_path: Path) -> None:
    found = read_html(export_model(mild_model, "html-bf16", tmp_path / "a.html").path)
    assert (found.tensors[NAME] == widen_bfloat16(narrow_to_bfloat16(mild_model.tensors[NAME]))).all()
    found = read_html(export_model(mild_model, "html", tmp_path / "b.html").path)
    largest = np.abs(mild_model.tensors[NAME]).max(axis=1, keepdims=True)
    assert (np.abs(found.tensors[NAME] - mild_model.tensors[NAME]) <= largest / 254 * 1.001).all()
    values, scales = quantize(mild_model.tensors[NAME], 48)
    assert (found.tensors[NAME] == values * scales[:, None]).all()


def test_weights_are_a_safetensors_file(mild_model: ForeignModel, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(pack(mild_model, "bf16"))
    assert SafetensorsFile(tmp_path / "model.safetensors").keys() == mild_model.tensors.keys()


@pytest.mark.parametrize("target", ["html", "html-bf16"])
def test_a_page_of_a_page_is_the_same(target: str, mild_model: ForeignModel, tmp_path: Path) -> None:
    first = export_model(mild_model, target, tmp_path / "a.html", title="x").path
    second = export_model(read_html(first), target, tmp_path / "b.html", title="x").path
    if target == "html-bf16":
        assert first.read_bytes() == second.read_bytes()
    for name, tensor in read_html(first).tensors.items():
        assert read_html(second).tensors[name] == pytest.approx(tensor, rel=1e-5)


def test_the_heading_is_the_file_name_unless_given(mild_model: ForeignModel, tmp_path: Path) -> None:
    assert b"<title>my story</title>" in export_model(mild_model, "html", tmp_path / "my story.html").path.read_bytes()
    page = export_model(mild_model, "html", tmp_path / "b.html", title="A & B").path.read_bytes()
    assert b"<title>A &amp; B</title>" in page
    with pytest.raises(UsageError, match="title does not fit gguf; it requires `target=html` or html-bf16"):
        export_model(mild_model, "gguf", tmp_path / "c.gguf", title="x")


def test_only_a_page_is_replaced(mild_model: ForeignModel, tmp_path: Path) -> None:
    path = tmp_path / "story.html"
    path.write_text("<!doctype html>\n<p>my homework</p>")
    with pytest.raises(ArtifactError, match=r"story.html"):
        export_model(mild_model, "html", path, overwrite=True)
    assert "homework" in path.read_text()
    path.unlink()
    export_model(mild_model, "html", path)
    with pytest.raises(ArtifactError, match=r"overwrite=True"):
        export_model(mild_model, "html", path)
    export_model(mild_model, "html-bf16", path, overwrite=True)
    assert read_html(path).source == "HTML page, bf16"


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        (
            {"hidden_size": 768, "num_layers": 12, "num_heads": 12},
            "int8",
            r"the page would have 1\d\d MB, more than the 100 MB .*; train a smaller model, or use `target=gguf-q8`",
        ),
        (
            {"hidden_size": 512, "num_layers": 12, "num_heads": 8},
            "bf16",
            r"would have 1\d\d MB, .*; with 8-bit weights it has \d\d MB: use `target=html`",
        ),
    ],
)
def test_a_page_over_100_mb_is_refused(
    fields: dict[str, Any], kind: NumberKind, message: str, model: ForeignModel
) -> None:
    """Without weights: the shapes decide, before any work."""
    config = ModelConfig(vocab_size=model.config.vocab_size, **fields)
    with pytest.raises(InputError, match=message):
        check_html(replace(model, config=config, tensors={}), kind)


@pytest.mark.parametrize(("target", "kind"), [("html", "int8"), ("html-bf16", "bf16")])
def test_the_size_is_known_before(target: str, kind: NumberKind, mild_model: ForeignModel, tmp_path: Path) -> None:
    assert len(pack(mild_model, kind)) == packed_bytes(mild_model.config, kind)
    size = export_model(mild_model, target, tmp_path / "a.html").num_bytes
    assert size < html_bytes(mild_model, kind) < size + 2**18


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (rb"<!-- tinyllm page", b"<!-- another page", "is a web page, but not one of a model that tinyllm wrote"),
        (rb'id="info">\{', b'id="info">{{', "the description in .* is not valid JSON"),
        (rb'"numbers": "int8"', b'"numbers": "int4"', "numbers is 'int4', expected int8 or bf16"),
        (rb'"num_layers": 2', b'"num_layers": 1073741824', "num_layers is 1073741824, more than its weights of"),
        (rb'"num_layers": 2', b'"num_layers": 1', "its weights are not those of its config"),
        (rb'"hidden_size": 64', b'"hidden_size": 63', "hidden_size 63 is not divisible"),
        (rb'"end_ids": \[', b'"end_ids": [99999, ', "end_ids is .*, expected a list of token ids"),
        (rb'"sha256": \{', b'"sha256": {"x": "", ', "does not hold .*x.* once"),
        (rb'(data-file="model.safetensors">.{400})...', rb"\1...", "'model.safetensors' is not base64"),
        (rb'(data-file="model.safetensors">.{400})....', rb"\1AAAA", "'model.safetensors' is damaged: .* SHA-256"),
        (rb'(data-file="tokenizer.model">.{400})....', rb"\1AAAA", "'tokenizer.model' is damaged"),
    ],
)
def test_damage_is_named(old: bytes, new: bytes, message: str, mild_model: ForeignModel, tmp_path: Path) -> None:
    path = export_model(mild_model, "html", tmp_path / "a.html").path
    damaged, count = re.subn(old, new, path.read_bytes(), count=1)
    assert count == 1
    path.write_bytes(damaged)
    with pytest.raises(FormatError, match=message) as caught:
        read_html(path)
    assert "a.html" in str(caught.value)


SPLITTER = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pre_tokenizer": SPLITTER | {"add_prefix_space": True}},
            "a rule of splitting other than those of gpt-2, smollm",
        ),
        ({"normalizer": {"type": "NFC"}}, "a rule of splitting other than"),
        ({"end_of_word_suffix": "</w>"}, "end_of_word_suffix"),
        ({"missing": "!"}, "no token for some bytes"),
        ({"lstrip": True}, "lstrip of the added token '<user>'"),
    ],
)
def test_rules_of_tokenizers_that_a_page_lacks_are_refused(
    changes: dict[str, Any], message: str, mild_model: ForeignModel
) -> None:
    vocabulary = {text: id for id, text in enumerate(text for text in BYTES if text != changes.get("missing"))}
    token = {"id": len(vocabulary), "content": "<user>", "single_word": False, "lstrip": False, "rstrip": False}
    token |= {"normalized": False, "special": False} | {key: changes[key] for key in changes if key in token}
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    model |= {key: value for key, value in changes.items() if key.startswith("end_")}
    content = {"model": model, "added_tokens": [token], "pre_tokenizer": SPLITTER, "decoder": SPLITTER}
    content |= {key: value for key, value in changes.items() if key in ("pre_tokenizer", "normalizer")}
    tokenizer = ByteLevelTokenizer({"tokenizer.json": json.dumps(content).encode()}, "my tokenizer")
    with pytest.raises(InputError, match=f"my tokenizer has {message}.* which a page cannot compute"):
        check_html(replace(mild_model, tokenizer=tokenizer), "int8")
