"""Directories of transformers give the same results here: ends and starts of texts, added tokens, unused rows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers")

from tinyllm.exchange.read import read_model  # noqa: E402
from tinyllm.exchange.tokenizer_source import load_tokenizer  # noqa: E402
from tinyllm.exchange.write import export_model  # noqa: E402
from tinyllm.loading import load  # noqa: E402
from tinyllm.tokenizer.codec import Tokenizer  # noqa: E402
from tinyllm.tokenizer.files import hugging_face_files  # noqa: E402
from tinyllm.tokenizer.training import train_model  # noqa: E402

Edit = Callable[[dict[str, Any]], Any]
MakeModelDir = Callable[..., Path]
PROMPT = "the red fox"
TEXTS = [
    *("Hello<x>world and <x> you", "<x>Hello", "<x><x> a", "a<x>", "  two  spaces <x>  x", " <x>", "x <x"),
    *("<s>hi</s>", "▁odd ▁<x>", "", " ", "<pad> é 你 😀\n<x>\n"),
]


def edit_json(path: Path, edit: Edit) -> None:
    content = json.loads(path.read_bytes())
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def make_foreign(path: Path, *, drop: tuple[str, ...] = (), **edits: Edit) -> Path:
    """`path` without the manifest and the files to `drop`, and its JSON files edited, named without `.json`."""
    for name in ("manifest.json", *drop):
        (path / name).unlink()
    for name, edit in edits.items():
        edit_json(path / f"{name}.json", edit)
    return path


def import_again(path: Path) -> Path:
    """The directory that `tinyllm import` writes from `path`."""
    output = path.with_name(f"{path.name}-imported")
    export_model(read_model(path), "safetensors", output)
    return output


def their_tokens(path: Path, prompt: str = PROMPT, max_new_tokens: int = 24) -> list[int]:
    model = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(path)(prompt, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    tokens: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens


def our_tokens(path: Path, dtype: str = "float32", prompt: str = PROMPT, max_new_tokens: int = 24) -> list[int]:
    """Greedy tokens of the CPU engine for float32, of the torch engine for another dtype."""
    generator = load(path, device="cpu", dtype=dtype)
    return generator.generate(prompt, max_new_tokens=max_new_tokens, temperature=0)[0].token_ids


def set_ends(generation: Any, config: Any) -> dict[str, Edit]:
    return {
        "generation_config": lambda content: content.update(eos_token_id=generation),
        "config": lambda content: content.update(eos_token_id=config),
    }


@pytest.fixture
def unending(make_model_dir: MakeModelDir) -> tuple[Path, list[int]]:
    """A directory whose texts never end, and the tokens of one."""
    edits = set_ends(None, None)
    path = make_foreign(make_model_dir(context_length=64), drop=(), **edits)
    return path, their_tokens(path)


def test_a_text_ends_where_it_does_in_transformers(unending: tuple[Path, list[int]]) -> None:
    path, tokens = unending
    first, second = list(dict.fromkeys(tokens))[1:3]
    unused = next(id for id in range(10, 320) if id not in tokens)
    for generation, config in [
        (None, first),
        (first, second),
        (second, first),
        ([unused, second], first),
        ([second, first], 2),
        (-1, first),
        ([999, first], None),
    ]:
        for name, edit in set_ends(generation, config).items():
            edit_json(path / f"{name}.json", edit)
        expected = their_tokens(path)
        assert our_tokens(path) == expected, (generation, config)
        imported = import_again(path)
        assert our_tokens(imported) == their_tokens(imported) == expected
        shutil.rmtree(imported)


def test_config_json_alone_names_the_end(unending: tuple[Path, list[int]]) -> None:
    path, tokens = unending
    (path / "generation_config.json").unlink()
    for ends in (tokens[4], [tokens[3], tokens[5]], None):
        edit_json(path / "config.json", set_ends(None, ends)["config"])
        assert our_tokens(path) == their_tokens(path)
    edit_json(path / "config.json", lambda content: content.pop("eos_token_id"))
    assert our_tokens(path) == their_tokens(path) == tokens


def test_both_engines_end_at_every_end_token(unending: tuple[Path, list[int]]) -> None:
    path, tokens = unending
    first, second = list(dict.fromkeys(tokens))[1:3]
    unused = next(id for id in range(10, 320) if id not in tokens)
    for ends, last in (([unused, second], second), ([second, first], first)):
        for name, edit in set_ends(ends, 2).items():
            edit_json(path / f"{name}.json", edit)
        for dtype in ("float32", "bfloat16"):
            generated = our_tokens(path, dtype)
            assert generated[-1] in ends
            assert not set(generated[:-1]) & set(ends)
        assert our_tokens(path) == tokens[: tokens.index(last) + 1]


def test_our_own_texts_end_at_bos_and_eos_in_transformers_too(make_model_dir: MakeModelDir) -> None:
    """Training data separate documents by BOS, so a model generates BOS at the end of a text."""
    generation = transformers.GenerationConfig.from_pretrained(make_model_dir())
    assert generation.eos_token_id == [2, 1]


@pytest.mark.parametrize("drop", [(), ("tokenizer.model",), ("tokenizer.json",)])
def test_a_prompt_without_bos(drop: tuple[str, ...], make_model_dir: MakeModelDir) -> None:
    def without_template(content: dict[str, Any]) -> None:
        content["post_processor"] = None

    edits: dict[str, Edit] = {"tokenizer_config": lambda content: content.update(add_bos_token=False)}
    if "tokenizer.json" not in drop:
        edits["tokenizer"] = without_template
    path = make_foreign(make_model_dir(), drop=drop, **edits)
    expected = their_tokens(path)
    assert our_tokens(path) == expected
    imported = import_again(path)
    assert transformers.AutoTokenizer.from_pretrained(imported)(PROMPT).input_ids == load_tokenizer(path).encode(PROMPT)
    assert our_tokens(imported) == their_tokens(imported) == expected
    assert json.loads((imported / "tokenizer_config.json").read_bytes())["add_bos_token"] is False


def test_add_bos_token_false_wins_over_a_template(make_model_dir: MakeModelDir) -> None:
    path = make_foreign(make_model_dir(), tokenizer_config=lambda content: content.update(add_bos_token=False))
    assert not load(path, device="cpu").tokenizer.begins_with_bos


def test_a_template_without_bos_counts_where_nothing_is_said(make_model_dir: MakeModelDir) -> None:
    path = make_foreign(
        make_model_dir(),
        tokenizer=lambda content: content.update(post_processor=None),
        tokenizer_config=lambda content: content.pop("add_bos_token"),
    )
    assert our_tokens(path) == their_tokens(path)
    assert not load(path, device="cpu").tokenizer.begins_with_bos


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> Path:
    folder.mkdir()
    for name, content in hugging_face_files(tokenizer, context_length=32).items():
        (folder / name).write_bytes(content)
    return folder


SPACES_KEPT = Tokenizer.from_bytes(train_model(["Hello world, the two spaces and you"] * 9, 285), "kept.model")


@pytest.mark.parametrize("drop", ["", "tokenizer.model"])
@pytest.mark.parametrize("scheme", [None, "removes", "first", "always"])
@pytest.mark.parametrize("flags", [None, {}, {"normalized": True}, {"special": True}])
def test_ids_and_texts_with_added_tokens(
    flags: dict[str, Any] | None, scheme: str | None, drop: str, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = tiny_tokenizer if scheme == "removes" else SPACES_KEPT
    size = source.vocab_size
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}

    def edit(content: dict[str, Any]) -> None:
        if scheme in ("first", "always"):
            splitter = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
            content.update(normalizer=None, pre_tokenizer=splitter)
        if flags is not None:
            pad = {"id": size, "content": "<pad>", **usual, "special": True}
            content["added_tokens"] = [pad, {"id": size + 1, "content": "<x>", **usual, **flags}]

    path = write_tokenizer(tmp_path / "theirs", source)
    edit_json(path / "tokenizer.json", edit)
    if drop:
        (path / drop).unlink()
    ours = load_tokenizer(path)
    again = write_tokenizer(tmp_path / "again", ours)
    for folder in (path, again):
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        for text in TEXTS:
            ids = theirs(text).input_ids
            assert ours.encode(text, bos=True) == ids, text
            stream = ours.stream()
            assert "".join([*map(stream.push, ids), stream.finish()]) == ours.decode(ids)
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text
    for copy in (load_tokenizer(again), load_tokenizer(again / "tokenizer.json"), Tokenizer.load(again)):
        assert [copy.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]


def resize(path: Path, vocab_size: int, **config: Any) -> None:
    """Random rows for tokens beyond the vocabulary."""
    tensors = load_file(path / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            rows = torch.randn(vocab_size - len(tensors[name]), tensors[name].shape[1])
            tensors[name] = torch.cat([tensors[name], rows])
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    edit_json(path / "config.json", lambda content: content.update(vocab_size=vocab_size, **config))


@pytest.mark.parametrize("drop", [(), ("tokenizer.model",)])
@pytest.mark.parametrize("tie", [True, False])
def test_unused_rows(drop: tuple[str, ...], tie: bool, make_model_dir: MakeModelDir) -> None:
    path = make_foreign(make_model_dir(tie_embeddings=tie), drop=drop)
    resize(path, 336)
    expected = their_tokens(path)
    assert any(token >= 320 for token in expected), "the text shows that unused rows give tokens, and no text"
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    for folder in (path, import_again(path)):
        generation = load(folder, device="cpu").generate(PROMPT, max_new_tokens=24, temperature=0)[0]
        assert generation.token_ids == expected
        assert PROMPT + generation.text == theirs.decode(theirs(PROMPT).input_ids + expected, skip_special_tokens=True)


def test_an_added_token_for_which_the_model_has_no_row(make_model_dir: MakeModelDir) -> None:
    path = make_model_dir()
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    theirs.add_special_tokens({"pad_token": "<pad>"})
    make_foreign(path, drop=("tokenizer.model",))
    theirs.save_pretrained(path)
    assert our_tokens(path) == their_tokens(path)


@pytest.mark.parametrize("keep_model", [True, False])
def test_a_directory_that_transformers_saved_after_adding_tokens(
    keep_model: bool, make_model_dir: MakeModelDir
) -> None:
    """Fine-tuning scripts add a padding token, a new token and rows for them."""
    path = make_model_dir()
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    theirs.add_special_tokens({"pad_token": "<pad>"})
    theirs.add_tokens(["<x>"])
    model.resize_token_embeddings(len(theirs), pad_to_multiple_of=16)
    make_foreign(path, drop=() if keep_model else ("tokenizer.model",))
    model.save_pretrained(path)
    theirs.save_pretrained(path)
    expected = their_tokens(path, "the <x> fox")
    assert our_tokens(path, prompt="the <x> fox") == expected
    imported = import_again(path)
    assert our_tokens(imported, prompt="the <x> fox") == their_tokens(imported, "the <x> fox") == expected


def test_texts_of_different_lengths_go_side_by_side(make_model_dir: MakeModelDir) -> None:
    path = make_model_dir()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    batch = tokenizer(["the red", "the red fox saw a ball"], padding=True, return_tensors="pt", padding_side="left")
    assert len(tokenizer) == model.config.vocab_size == 320, "no new row"
    model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert model.config.pad_token_id is None, "transformers trains no row of a padding token"


LAYOUTS = ("lm_head only", "bare names", "float64", "swish", "no context", "null heads")


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.inference_mode()
def test_other_spellings_of_a_llama(layout: str, make_model_dir: MakeModelDir) -> None:
    path = make_foreign(make_model_dir(num_kv_heads=4))
    tensors = load_file(path / "model.safetensors")
    match layout:
        case "lm_head only":
            tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
        case "bare names":
            tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        case "float64":
            tensors = {name: tensor.double() for name, tensor in tensors.items()}
        case "swish":
            edit_json(path / "config.json", lambda content: content.update(hidden_act="swish"))
        case "no context":
            edit_json(path / "config.json", lambda content: content.pop("max_position_embeddings"))
        case "null heads":
            edit_json(path / "config.json", lambda content: content.update(num_key_value_heads=None))
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    generator = load(path, device="cpu")
    assert generator.config.context_length == model.config.max_position_embeddings
    ids = generator.tokenizer.encode(PROMPT, bos=True)
    ours = generator.engine.read(generator.engine.open(1), torch.tensor([ids]).numpy())
    torch.testing.assert_close(
        torch.from_numpy(ours.copy())[0], model(torch.tensor([ids])).logits[0, -1], atol=1e-4, rtol=0
    )
    assert our_tokens(path) == their_tokens(path)


def test_reserved_pieces_are_special_tokens_there(tmp_path: Path) -> None:
    proto = train_model(["Once upon a time the fox saw a red ball."] * 9, 320, special=["<|user|>", "<|end|>"])
    ours = Tokenizer.from_bytes(proto, "reserved.model")
    path = write_tokenizer(tmp_path / "reserved", ours)
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    text = "<|user|>the fox<|end|>"
    assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text)
    asked = transformers.AutoTokenizer.from_pretrained(path, split_special_tokens=False)
    assert asked(text, add_special_tokens=False).input_ids == ours.encode(text, allow_special=True)
    assert theirs.convert_tokens_to_ids("<|user|>") == 318
