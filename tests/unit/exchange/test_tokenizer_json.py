"""Tests tokenizer.json written and read back, and files that are not equivalent to a SentencePiece model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyllm.errors import FormatError
from tinyllm.exchange.tokenizer_json import read_tokenizer_json
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.files import hugging_face_files

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def directory(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """The JSON files of a model directory, without the `.model`."""
    for name, content in hugging_face_files(tokenizer, context_length=32).items():
        if name.endswith(".json"):
            (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def change(directory: Path) -> Callable[[Change], Path]:
    def change(edit: Change) -> Path:
        path = directory / "tokenizer.json"
        content = json.loads(path.read_bytes())
        edit(content)
        path.write_text(json.dumps(content))
        return path

    return change


def test_ids_and_text_equal_the_model_s(directory: Path, tokenizer: Tokenizer) -> None:
    read = read_tokenizer_json(directory / "tokenizer.json")
    assert [(piece.text, piece.type) for piece in read.pieces] == [
        (piece.text, piece.type) for piece in tokenizer.pieces
    ]
    for text in ("Once upon a time", "the red red ball", "  two  spaces  ", "été 你好 😀 <s>\n", "", " ", "aaaaa"):
        assert read.encode(text, bos=True, eos=True) == tokenizer.encode(text, bos=True, eos=True)
        assert read.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))


def test_metaspace_equals_a_normalizer(change: Callable[[Change], Path]) -> None:
    def metaspace(content: dict[str, Any]) -> None:
        content["normalizer"] = None
        content["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "always",
            "split": False,
        }

    proto = read_tokenizer_json(change(metaspace)).proto
    assert (proto.add_dummy_prefix, proto.remove_extra_whitespaces) == (True, False)


def test_merges_may_be_strings(change: Callable[[Change], Path], tokenizer: Tokenizer) -> None:
    def join(content: dict[str, Any]) -> None:
        content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]

    assert read_tokenizer_json(change(join)).encode("Once upon") == tokenizer.encode("Once upon")


def test_special_tokens_may_follow_the_vocabulary(change: Callable[[Change], Path]) -> None:
    def add(content: dict[str, Any]) -> None:
        content["added_tokens"] = [{"id": 320, "content": "[PAD]", "special": True}]

    path = change(add)
    config = json.loads((path.parent / "tokenizer_config.json").read_bytes())
    (path.parent / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": {"content": "[PAD]"}}))
    read = read_tokenizer_json(path)
    assert (read.vocab_size, read.pad_id, read.bos_id) == (321, 320, 1)


def model(**values: Any) -> Change:
    return lambda content: content["model"].update(values)


def added(**values: Any) -> Change:
    return lambda content: content.update(added_tokens=[{"id": 320, "content": "<x>"} | values])


def without_a_merge(content: dict[str, Any]) -> None:
    content["model"]["merges"].pop()


def scattered_merges(content: dict[str, Any]) -> None:
    content["model"]["merges"].append(content["model"]["merges"][0])


REFUSED: dict[str, tuple[Change, str]] = {
    "unigram": (model(type="Unigram"), "model.type is 'Unigram', expected 'BPE'"),
    "GPT-2": (model(byte_fallback=False), "model.byte_fallback is False, expected True"),
    "Llama 3": (model(ignore_merges=True), "model.ignore_merges is True"),
    "normalizer": (lambda c: c.update(normalizer={"type": "NFKC"}), "its normalizer and pre_tokenizer are not those"),
    "splitter": (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "its normalizer and pre_tokenizer are"),
    "byte level": (
        lambda c: c.update(pre_tokenizer={"type": "ByteLevel"}),
        "its normalizer and pre_tokenizer are not those of a SentencePiece model",
    ),
    "a merge less": (without_a_merge, "has no merge of"),
    "merges apart": (scattered_merges, "are not adjacent"),
    "merges of a kind": (model(merges=[["a"]]), "model.merges holds"),
    "no merges": (model(merges=5), "model.merges is not an array"),
    "no vocabulary": (model(vocab=[]), "model.vocab is not an object"),
    "ids": (lambda c: c["model"]["vocab"].update({"<s>": 999}), "are not 0 to 319"),
    "ids of a kind": (lambda c: c["model"]["vocab"].update({"<s>": "1"}), "are not 0 to 319"),
    "greedy token": (added(lstrip=True), r"the added token '<x>' includes surrounding text \(lstrip\)"),
    "token far away": (added(id=10**6), "an added token has the id 1000000, but there are only 321 tokens"),
    "token without id": (added(id=None), "the added token '<x>' has the id None"),
    "token below": (added(id=-1), "the added token '<x>' has the id -1"),
    "token of a kind": (lambda c: c.update(added_tokens=["<x>"]), "added_tokens holds '<x>'"),
    "long token": (lambda c: c["model"]["vocab"].update({"x" * 600: 320}), "has 600 characters, expected at most 512"),
    "no model": (lambda c: c.pop("model"), "has no model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tokenizers_unlike_sentencepiece_are_refused(case: str, change: Callable[[Change], Path]) -> None:
    edit, message = REFUSED[case]
    with pytest.raises(FormatError, match=message):
        read_tokenizer_json(change(edit))


def test_the_unknown_token_must_exist(change: Callable[[Change], Path]) -> None:
    path = change(model(unk_token="<none>"))
    (path.parent / "tokenizer_config.json").unlink()
    with pytest.raises(FormatError, match="the token for unknown text, '<none>', is not in the vocabulary"):
        read_tokenizer_json(path)
