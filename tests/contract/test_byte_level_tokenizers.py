"""Byte-level BPE tokenizers (GPT-2, SmolLM, Llama 3) against transformers: ids, text, and everything made with them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from byte_level import END, START, odd_texts, save_byte_level
from fuzz import run_mutants
from tinyllm.api import train
from tinyllm.errors import FormatError, InputError
from tinyllm.exchange.tokenizer_source import load_tokenizer
from tinyllm.exchange.write import export_model, tokenizer_of
from tinyllm.loading import load, read_model
from tinyllm.model_dir import load_model, read_tokenizer
from tinyllm.shards.format import ShardSet
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.byte_level import ByteLevelTokenizer
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.opening import open_tokenizer, tokenizer_of_files

KINDS = ("gpt2", "smollm", "llama3")
NUM_TEXTS = 1_000


@pytest.fixture(scope="module", params=KINDS)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of transformers with a tokenizer of one kind, and five rows without a token."""
    folder = save_byte_level(request.param, tmp_path_factory.mktemp(request.param))
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=405,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=1 if request.param == "llama3" else 0,
        eos_token_id=0,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(directory: Path) -> Tokenizer:
    return load_tokenizer(directory)


@pytest.fixture(scope="module")
def theirs(directory: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(directory)


def test_ids_are_theirs_for_odd_texts(ours: Tokenizer, theirs: Any) -> None:
    """With special tokens found in the text, and without."""
    texts = odd_texts(NUM_TEXTS)
    expected = theirs(texts).input_ids
    found = [ours.encode(text, bos=ours.begins_with_bos, allow_special=True) for text in texts]
    assert sum(a != b for a, b in zip(expected, found, strict=True)) == 0
    expected = theirs(texts, add_special_tokens=False, split_special_tokens=True).input_ids
    found = [ours.encode(text) for text in texts]
    assert sum(a != b for a, b in zip(expected, found, strict=True)) == 0
    assert sum(ids != ours.encode(text, allow_special=True) for ids, text in zip(found, texts, strict=True)) > 50


def test_decoded_text_is_theirs_at_once_and_in_a_stream(ours: Tokenizer, theirs: Any) -> None:
    """Whole texts come back; ids cut anywhere, which end inside characters, give the same text as theirs."""
    for number, text in enumerate(odd_texts(NUM_TEXTS)):
        ids = ours.encode(text)
        assert ours.decode(ids) == text
        ids = ids[number % 3 : len(ids) - number % 5]
        expected = theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        stream = ours.stream()
        assert "".join(map(stream.push, ids)) + stream.finish() == ours.decode(ids) == expected


def test_special_tokens_are_theirs(ours: Tokenizer, theirs: Any, directory: Path) -> None:
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.begins_with_bos == (directory.name.startswith("llama3"))
    assert ours.decode([theirs.bos_token_id, *ours.encode("fox"), theirs.eos_token_id]) == "fox"
    assert ours.vocab_size == 405
    assert ours.piece_bytes(404) == b""
    with pytest.raises(InputError, match="out of range"):
        ours.decode([405])
    with pytest.raises(InputError, match="lone surrogate"):
        ours.encode("\ud800")


def test_a_directory_loads_and_generates_their_text(directory: Path, theirs: Any) -> None:
    loaded, model = load(directory, device="cpu"), transformers.AutoModelForCausalLM.from_pretrained(directory)
    assert "CPU engine" in loaded.engine.description
    prompt = theirs("Once upon a", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = model.generate(prompt, max_new_tokens=30, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]
    pieces = list(loaded.stream("Once upon a", max_new_tokens=30, temperature=0))
    (found,) = loaded.generate("Once upon a", max_new_tokens=30, temperature=0)
    assert found.token_ids == expected.tolist()[: len(found.token_ids)]
    assert "".join(pieces) == found.text


def test_an_export_keeps_the_tokenizer_and_its_ids(directory: Path, ours: Tokenizer, tmp_path: Path) -> None:
    exported = export_model(read_model(directory), "safetensors", tmp_path / "ours")
    assert exported.notes == []
    assert exported.largest_difference == 0
    saved, theirs = read_tokenizer(tmp_path / "ours"), transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert saved.fingerprint == ours.fingerprint
    assert (saved.begins_with_bos, list(saved.end_ids), saved.vocab_size) == (ours.begins_with_bos, [ours.eos_id], 405)
    for text in odd_texts(100):
        assert theirs(text).input_ids == saved.encode(text, bos=saved.begins_with_bos, allow_special=True)


def test_gguf_keeps_the_ids(directory: Path, tmp_path: Path) -> None:
    exported = export_model(read_model(directory), "gguf", tmp_path / "model.gguf")
    assert exported.largest_difference == 0
    assert exported.notes == []
    ours = tokenizer_of(read_model(directory))
    read = tokenizer_of(read_model(tmp_path / "model.gguf"))
    rules = [(each.begins_with_bos, each.end_ids, each.bos_id, each.eos_id, each.pieces) for each in (read, ours)]
    assert rules[0] == rules[1]
    assert read.fingerprint == ours.fingerprint
    for text in odd_texts(NUM_TEXTS):
        assert read.encode(text) == ours.encode(text)
        assert read.encode(text, allow_special=True) == ours.encode(text, allow_special=True)


def test_a_rule_of_words_without_a_name_in_gguf_is_refused(directory: Path, tmp_path: Path) -> None:
    model = read_model(directory)
    files = dict(tokenizer_of(model).files)
    files["tokenizer.json"] = files["tokenizer.json"].replace(b'"add_prefix_space": false', b'"add_prefix_space": true')
    changed = dataclasses.replace(model, tokenizer=tokenizer_of_files(files, "changed"))
    with pytest.raises(
        InputError, match="changed splits a text by another rule than those that tinyllm writes to GGUF"
    ):
        export_model(changed, "gguf", tmp_path / "model.gguf")


@pytest.mark.parametrize(("target", "message"), [("llama2c", "tokenizer.bin cannot"), ("pt", "SentencePiece file can")])
def test_formats_without_a_place_for_it_refuse_it(directory: Path, target: str, message: str, tmp_path: Path) -> None:
    model = read_model(directory)
    config = model.config.model_copy(update={"norm_eps": 1e-5})
    with pytest.raises(InputError, match=f"is a byte-level BPE tokenizer, which .*{message}"):
        export_model(type(model)(config, model.tensors, model.tokenizer, model.source), target, tmp_path / "x")


def test_shards_and_training_keep_it(directory: Path, tmp_path: Path) -> None:
    """Two processes encode; the run begins from the directory, and its model has the same tokenizer."""
    lines = [f"Once upon a time the fox number {i} saw 日本 🙂 {END} {START}." for i in range(200)]
    (tmp_path / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = load_tokenizer(directory)
    for workers in (1, 2):
        made = prepare(
            [tmp_path / "corpus.txt"], tokenizer, tmp_path / f"shards-{workers}", documents="line", num_workers=workers
        )
    assert made.tokenizer.fingerprint == tokenizer.fingerprint
    first = made.train[0][: int(made.train[0].tolist().index(tokenizer.bos_id, 1))].tolist()
    assert tokenizer.decode(first) in lines
    assert first[1:] == tokenizer.encode(tokenizer.decode(first))
    total = made.train_counts + made.validation_counts
    assert (total.documents, total.text_bytes) == (200, sum(len(line.encode()) for line in lines))
    assert ShardSet.open(tmp_path / "shards-2", verify="full").train[0].tolist() == made.train[0].tolist()
    training = {"init_from": str(directory), "sequence_length": 16, "batch_size": 8, "eval_batches": 2, "device": "cpu"}
    outcome = train(tmp_path / "shards-2", tmp_path / "run", training=training, schedule={"num_steps": 3})
    assert outcome.model is not None
    assert load_model(tmp_path / "run" / "model")[1].fingerprint == tokenizer.fingerprint


def test_files_and_rules_survive(ours: Tokenizer) -> None:
    changed = ours.with_rules(adds_bos=not ours.begins_with_bos, end_ids=[7])
    again = tokenizer_of_files(changed.files, "again")
    assert again.begins_with_bos != ours.begins_with_bos
    assert (list(changed.end_ids), again.fingerprint) == ([7], ours.fingerprint)
    assert tokenizer_of_files(ours.files, "again").files == ours.files


Change = Callable[[dict[str, Any]], object]
DAMAGED: dict[str, tuple[Change, str]] = {
    "decoder": (lambda c: c["decoder"].update(type="Fuse"), "decoder is not ByteLevel alone"),
    "dropout": (lambda c: c["model"].update(dropout=0.1), "model.dropout is 0.1"),
    "ids": (lambda c: c["model"]["vocab"].update(extra=900), "are not 0 to"),
    "model": (lambda c: c["model"].update(type="WordPiece"), "its model is 'WordPiece'"),
    "merges": (lambda c: c["model"].update(merges=[["a", "no such token"]]), "is not a tokenizer that can be used"),
    "added": (lambda c: c.update(added_tokens=[5]), "expected struct AddedToken"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused_by_name(case: str, tmp_path: Path) -> None:
    path = save_byte_level("gpt2", tmp_path / "t") / "tokenizer.json"
    change, message = DAMAGED[case]
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(FormatError, match=message) as caught:
        open_tokenizer(path.parent)
    assert "tokenizer.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [25, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damaged", ["tokenizer.json", "tokenizer_config.json"])
def test_damaged_copies_are_refused_or_whole(damaged: str, count: int, tmp_path: Path) -> None:
    """The library panics on some of them."""
    path = save_byte_level("llama3", tmp_path / "t")
    reader = "tinyllm.exchange.tokenizer_source:load_tokenizer"
    assert run_mutants(reader, path, count, damaged=damaged).refused > count // 3


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = save_byte_level("gpt2", tmp_path / "t")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"needs the package tokenizers: pip install 'tinyllm\[bpe\]'"):
        ByteLevelTokenizer.load(path)
