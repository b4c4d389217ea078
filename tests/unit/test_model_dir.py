"""Saving and loading a model directory, and one clear error for each kind of invalid directory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference_data import STORIES_260K
from tinyllm import model_dir, storage
from tinyllm.config import ModelConfig
from tinyllm.errors import ArtifactError, FormatError, InputError, MismatchError
from tinyllm.exchange.read import read_model
from tinyllm.exchange.write import tokenizer_of
from tinyllm.model import size
from tinyllm.model.transformer import Transformer
from tinyllm.model_dir import (
    bundled_model,
    find_model,
    load_model,
    read_config,
    read_tensors,
    read_tokenizer,
    save_model,
    verify_model,
)
from tinyllm.tokenizer.codec import Tokenizer

MakeModelDir = Callable[..., Path]


def make_foreign(path: Path, **config: object) -> Path:
    """Removes the manifest, as in a directory of another tool, and changes keys of config.json."""
    (path / storage.MANIFEST_NAME).unlink()
    content = json.loads((path / "config.json").read_bytes()) | config
    content = {key: value for key, value in content.items() if value != "absent"}
    (path / "config.json").write_text(json.dumps(content))
    return path


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file({name: tensor.clone() for name, tensor in weights.items()}, path / "model.safetensors")
    return path


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_saved_model_loads_with_equal_weights(
    make_model_dir: MakeModelDir, tiny_tokenizer: Tokenizer, tie_embeddings: bool
) -> None:
    path = make_model_dir(tie_embeddings=tie_embeddings, norm_eps=1e-6)
    model, tokenizer = load_model(path)
    assert model.config == read_config(path)
    assert model.config.norm_eps == 1e-6
    assert not model.training
    assert tokenizer.fingerprint == tiny_tokenizer.fingerprint
    torch.testing.assert_close(model.state_dict(), load_file(path / "model.safetensors"), rtol=0, atol=0)


def test_weights_are_rounded_on_saving_and_widened_on_loading(
    tmp_path: Path, make_model_dir: MakeModelDir, tiny_tokenizer: Tokenizer
) -> None:
    model, _ = load_model(make_model_dir())
    save_model(tmp_path / "small", model.state_dict(), model.config, tiny_tokenizer, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in read_tensors(tmp_path / "small").values()} == {"BF16"}
    assert json.loads((tmp_path / "small" / "config.json").read_bytes())["torch_dtype"] == "bfloat16"
    widened, _ = load_model(tmp_path / "small")
    expected = {name: tensor.bfloat16().float() for name, tensor in model.state_dict().items()}
    torch.testing.assert_close(widened.state_dict(), expected, rtol=0, atol=0)
    assert load_model(tmp_path / "small", dtype=torch.bfloat16)[0].output_weight.dtype == torch.bfloat16


def test_the_manifest_describes_the_model(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    config = ModelConfig(vocab_size=320, hidden_size=32, num_layers=1, num_heads=2)
    save_model(tmp_path / "m", Transformer(config), config, tiny_tokenizer, details={"data": "sentences"})
    manifest = verify_model(tmp_path / "m")
    assert manifest is not None
    assert manifest.kind == "model"
    assert manifest.details["num_parameters"] == size.num_parameters(config)
    assert manifest.details["tokenizer_fingerprint"] == tiny_tokenizer.fingerprint
    assert manifest.details["data"] == "sentences"
    assert set(manifest.files) >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.model"}


def test_the_same_model_gives_the_same_bytes(make_model_dir: MakeModelDir) -> None:
    first, second = make_model_dir("first"), make_model_dir("second")
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_a_run_directory_gives_its_model(make_model_dir: MakeModelDir, tmp_path: Path) -> None:
    path = make_model_dir("model")
    assert find_model(tmp_path) == find_model(path) == path


def test_a_directory_without_a_manifest_is_read(make_model_dir: MakeModelDir) -> None:
    path = make_foreign(make_model_dir())
    assert verify_model(path) is None
    load_model(path)


def test_both_keys_of_the_rope_base_are_read(make_model_dir: MakeModelDir) -> None:
    old = make_foreign(make_model_dir("old", rope_theta=5_000.0), rope_parameters="absent")
    new = make_foreign(make_model_dir("new", rope_theta=5_000.0), rope_theta="absent")
    assert read_config(old).rope_theta == read_config(new).rope_theta == 5_000.0


def test_redundant_tensors_of_old_files_are_ignored(make_model_dir: MakeModelDir) -> None:
    path = make_foreign(make_model_dir())

    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]

    load_model(change_weights(path, add))


def test_the_bundled_model_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it stands beside other models in one command; a folder of that name comes first."""
    monkeypatch.chdir(tmp_path)
    assert find_model("storybook") == bundled_model()
    with pytest.raises(InputError, match=r"storybook does not exist"):
        find_model(tmp_path / "storybook")
    Path("storybook").mkdir()
    with pytest.raises(InputError, match=r"storybook is not a model directory"):
        find_model("storybook")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing does not exist"):
        load_model(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty is not a model directory: it has no config.json"):
        load_model(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file, not a model directory"):
        load_model(tmp_path / "file")


def test_a_prompt_in_place_of_a_model_gives_one_line() -> None:
    with pytest.raises(InputError, match="model Once upon a time"):
        find_model("Once upon a time " * 100)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model", "config.json", "tokenizer.json"])
def test_a_damaged_byte_is_found_in_any_file(make_model_dir: MakeModelDir, name: str) -> None:
    path = make_model_dir()
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        load_model(path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model"])
def test_a_missing_file_is_named(make_model_dir: MakeModelDir, name: str) -> None:
    path = make_model_dir()
    (path / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        load_model(path)
    make_foreign(path)
    with pytest.raises(InputError, match=name):
        load_model(path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_cut_off_weights_are_refused_without_a_manifest_too(make_model_dir: MakeModelDir, keep: int) -> None:
    path = make_foreign(make_model_dir())
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:keep])
    with pytest.raises(
        FormatError, match=r"model.safetensors(: the header's length is | is cut off or damaged| is empty)"
    ):
        load_model(path)


def test_missing_unexpected_and_misshaped_weights_are_listed(make_model_dir: MakeModelDir) -> None:
    path = make_foreign(make_model_dir())

    def spoil(weights: dict[str, torch.Tensor]) -> None:
        del weights["model.norm.weight"]
        weights["model.extra.weight"] = torch.zeros(3)
        weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(2, 2)

    with pytest.raises(MismatchError) as caught:
        load_model(change_weights(path, spoil))
    message = str(caught.value)
    assert "1 missing (model.norm.weight)" in message
    assert "1 unexpected (model.extra.weight)" in message
    assert "1 misshaped (model.layers.1.mlp.up_proj.weight [2, 2] instead of [96, 32])" in message
    assert "\n" not in message


def test_weights_of_integers_are_refused(make_model_dir: MakeModelDir) -> None:
    def quantize(weights: dict[str, torch.Tensor]) -> None:
        weights["model.norm.weight"] = weights["model.norm.weight"].to(torch.int8)

    path = change_weights(make_foreign(make_model_dir()), quantize)
    with pytest.raises(FormatError, match=r"model.norm.weight has the dtype 'I8', expected"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mistral"}, "model_type is 'mistral'"),
        ({"attention_bias": "some"}, "attention_bias: Input should be a valid boolean"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "type llama3 has no low_freq_factor, high_freq"),
        ({"rope_parameters": "plain"}, "expected an object"),
        ({"head_dim": 63}, "head_size is 63 channels a head"),
        ({"head_dim": 10**6}, "head_dim is 1000000; at most 4096"),
        ({"hidden_size": "absent"}, "has no hidden_size"),
        ({"hidden_size": "many"}, "hidden_size"),
        ({"num_attention_heads": 5}, "hidden_size 32 is not divisible by num_heads 5"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; at most"),
    ],
)
def test_a_config_that_is_not_llama_2_is_refused_by_field(
    make_model_dir: MakeModelDir, change: dict[str, object], message: str
) -> None:
    path = make_foreign(make_model_dir(), **change)
    with pytest.raises(FormatError, match=message) as caught:
        read_config(path)
    assert str(path / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_unsupported_fields_are_listed_at_once(make_model_dir: MakeModelDir) -> None:
    changes = {
        "hidden_act": "gelu",
        "quantization_config": {"bits": 4},
        "partial_rotary_factor": 0.5,
        "rope_scaling": {"rope_type": "yarn"},
        "num_hidden_layers": 10**9,
    }
    with pytest.raises(FormatError) as caught:
        read_config(make_foreign(make_model_dir(), **changes))
    for key in changes:
        assert f"{key} " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_out_of_range_are_listed_with_the_rest(make_model_dir: MakeModelDir) -> None:
    path = make_foreign(make_model_dir(), hidden_act="gelu", rms_norm_eps=-1, num_hidden_layers=0)
    with pytest.raises(FormatError, match=r"hidden_act is 'gelu'.*num_hidden_layers.*rms_norm_eps"):
        read_config(path)


@pytest.mark.parametrize("ends", ["2", 2.0, True, [2, "3"], {"a": 1}])
def test_end_tokens_that_are_not_ids_are_refused(make_model_dir: MakeModelDir, ends: object) -> None:
    path = make_foreign(make_model_dir())
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    with pytest.raises(FormatError, match="eos_token_id is .*; expected a token id or a list of them"):
        read_tokenizer(path)


def test_a_manifest_without_end_tokens_ends_at_bos_and_eos(make_model_dir: MakeModelDir) -> None:
    path = make_model_dir()
    files = {file.name: file.read_bytes() for file in path.iterdir() if file.name != "manifest.json"}
    with storage.commit_directory(path, "model") as draft:
        for name, content in (files | {"generation_config.json": b'{"eos_token_id": 2}'}).items():
            (draft.path / name).write_bytes(content)
    assert read_tokenizer(path).end_ids == {1, 2}
    assert tokenizer_of(read_model(path)).end_ids == {1, 2}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_config_that_is_not_a_json_object_is_refused(make_model_dir: MakeModelDir, content: bytes) -> None:
    path = make_foreign(make_model_dir())
    (path / "config.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"config.json"):
        read_config(path)


def test_a_tokenizer_of_another_size_is_refused(make_model_dir: MakeModelDir, tiny_tokenizer: Tokenizer) -> None:
    config = ModelConfig(vocab_size=321, hidden_size=32, num_layers=1, num_heads=2)
    with pytest.raises(MismatchError, match="has 321 tokens, the tokenizer has 320"):
        save_model(Path("never"), Transformer(config), config, tiny_tokenizer)
    assert not Path("never").exists()

    def widen(weights: dict[str, torch.Tensor]) -> None:
        weights["model.embed_tokens.weight"] = torch.zeros(321, 32)

    path = change_weights(make_foreign(make_model_dir(), vocab_size=321), widen)
    with pytest.raises(MismatchError, match=r"model and tokenizer of .* do not match"):
        load_model(path)


def test_a_tokenizer_of_the_same_size_but_other_content_is_refused(
    make_model_dir: MakeModelDir, tmp_path: Path
) -> None:
    other = Tokenizer.load(STORIES_260K / "tok512.model")
    config = ModelConfig(vocab_size=512, hidden_size=32, num_layers=1, num_heads=2)
    save_model(tmp_path / "m", Transformer(config), config, other, details={"tokenizer_fingerprint": "f" * 64})
    with pytest.raises(MismatchError, match="as many tokens but another content"):
        read_tokenizer(tmp_path / "m")


def test_an_installation_without_its_bundled_model_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_dir, "__file__", str(tmp_path / "model_dir.py"))
    with pytest.raises(InputError, match=r"no bundled model at .*storybook; name a model directory"):
        bundled_model()


def test_the_bundled_model_is_in_the_package(
    make_model_dir: MakeModelDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_dir, "__file__", str(tmp_path / "model_dir.py"))
    (tmp_path / "bundled").mkdir()
    path = make_model_dir("bundled/storybook")
    assert bundled_model() == path


def test_reading_the_facts_of_a_model_loads_no_torch(make_model_dir: MakeModelDir) -> None:
    program = (
        "import sys; from tinyllm import model_dir as m; import tinyllm.generation.generator; p = sys.argv[1]; "
        "m.read_config(p), m.read_tensors(p), m.read_tokenizer(p), m.verify_model(m.find_model(p)); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(make_model_dir())], check=True)
