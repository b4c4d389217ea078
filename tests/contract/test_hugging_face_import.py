"""Models that transformers wrote compute the same logits here."""

from pathlib import Path
from typing import Any

import pytest
import torch

from reference_data import STORIES_260K, read_vectors, reduced_tokenizer

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from tinyllm.corpus.storybook import write_stories  # noqa: E402
from tinyllm.exchange.huggingface import read_hugging_face  # noqa: E402
from tinyllm.exchange.tokenizer_json import read_tokenizer_json  # noqa: E402
from tinyllm.model.transformer import Transformer  # noqa: E402
from tinyllm.tokenizer.codec import Tokenizer  # noqa: E402
from tinyllm.tokenizer.files import tokenizer_json  # noqa: E402


def random_llama(**changes: Any) -> Any:
    torch.manual_seed(2)
    shape = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**(shape | changes))).eval()


def largest_difference(theirs: Any, directory: Path) -> float:
    read = read_hugging_face(directory)
    ours = Transformer(read.config).eval()
    ours.load_state_dict({name: torch.from_numpy(values) for name, values in read.tensors.items()})
    ids = torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((theirs(ids).logits - ours(ids)).abs().max())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"rms_norm_eps": 1e-3, "num_key_value_heads": 4},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    ],
)
@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
def test_logits_are_those_of_transformers(changes: dict[str, Any], max_shard_size: str, tmp_path: Path) -> None:
    theirs = random_llama(**changes)
    theirs.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == "20KB")
    assert largest_difference(theirs, tmp_path) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_widened(dtype: torch.dtype, tmp_path: Path) -> None:
    random_llama().to(dtype).save_pretrained(tmp_path)
    # Loaded again, because `.to` also rounded the rotary frequencies, which no file holds.
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert largest_difference(theirs, tmp_path) < 1e-5


@pytest.mark.parametrize("name", ["llama2", "tok512"])
def test_ids_from_tokenizer_json_are_those_of_the_tokenizers_library(name: str, tmp_path: Path) -> None:
    content = (STORIES_260K / "tok512.model").read_bytes() if name == "tok512" else reduced_tokenizer(name)
    source = Tokenizer.from_bytes(content, name)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer_json(source))
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), read_tokenizer_json(path)
    for text in [*write_stories(100, seed=3), *(vector.text for vector in read_vectors("llama2"))]:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids == source.encode(text)
