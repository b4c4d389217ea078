"""Reads Hugging Face directories of Llama models: config.json, one or more safetensors files, the tokenizer.

`model_dir` writes tinyllm's own directories of the same format. `model.hugging_face_config` checks `config.json`.
Weights as `.bin` (pickles) are not read.
"""

from pathlib import Path

import numpy as np

from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, InputError
from tinyllm.exchange.foreign import LONGEST_CONTEXT, ForeignModel, Tensors, check_tensors
from tinyllm.exchange.tokenizer_source import read_directory_tokenizer
from tinyllm.json_file import read_json_object
from tinyllm.model.hugging_face_config import from_hugging_face
from tinyllm.model.size import EMBEDDING, OUTPUT
from tinyllm.model_dir import read_end_ids
from tinyllm.safetensors_file import SafetensorsFile
from tinyllm.tokenizer.resizing import fit_to

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
CLASSIFIER_HEAD = "score.weight"
BODY = "model."
"""Prefix of every tensor's name except the output projection's."""


def read_hugging_face(directory: Path) -> ForeignModel:
    """The model in `directory`, and its tokenizer if there is one.

    Raises InputError if files are missing, FormatError if they are damaged or not a Llama's.
    """
    config_path = directory / CONFIG_NAME
    if not config_path.is_file():
        raise InputError(f"{directory} has no {CONFIG_NAME}; it is not a Hugging Face model directory")
    config = from_hugging_face(read_json_object(config_path), str(config_path))
    if config.context_length > LONGEST_CONTEXT:
        raise FormatError(
            f"{config_path}: max_position_embeddings is {config.context_length}, expected at most {LONGEST_CONTEXT}"
        )
    tensors, types = _read_weights(directory)
    tensors = _with_standard_names(tensors, config, directory)
    check_tensors(config, tensors, directory)
    ends, notes = _read_end_ids(directory, config.vocab_size)
    if config.rope_scaling == "dynamic":
        notes += (
            f"{directory}: dynamic RoPE scaling changes nothing up to {config.context_length} tokens; tinyllm's "
            "context ends there",
        )
    source = f"Hugging Face directory ({', '.join(sorted(types))})"
    found = read_directory_tokenizer(directory)
    if found is None:
        return ForeignModel(config, tensors, None, source, ends, notes)
    tokenizer = fit_to(found, config.vocab_size)
    if tokenizer is None:
        raise FormatError(
            f"model and tokenizer of {directory} do not match: the model has {config.vocab_size} tokens, "
            f"the tokenizer has {found.vocab_size}; give the model the tokenizer it was trained with"
        )
    if found.vocab_size < config.vocab_size:
        source += f", {config.vocab_size - found.vocab_size} rows without a token"
    return ForeignModel(config, tensors, tokenizer.with_rules(end_ids=ends), source, ends, notes)


def _read_end_ids(directory: Path, vocab_size: int) -> tuple[frozenset[int] | None, tuple[str, ...]]:
    """The end tokens inside the vocabulary, and a line for those outside, which no text can reach."""
    ends = read_end_ids(directory)
    outside = sorted(id for id in ends or () if id >= vocab_size)
    if ends is None or not outside:
        return ends, ()
    ids = ", ".join(map(str, outside))
    return ends.difference(outside), (
        f"{directory}: eos_token_id {ids} is not among the {vocab_size} tokens of the model, so it ends no text",
    )


def _read_weights(directory: Path) -> tuple[Tensors, set[str]]:
    """All tensors of the weight files, and the names of their types."""
    if (directory / WEIGHTS_NAME).is_file():
        single = SafetensorsFile(directory / WEIGHTS_NAME)
        return dict(single), single.types
    if not (directory / INDEX_NAME).is_file():
        raise InputError(f"{directory} has neither {WEIGHTS_NAME} nor {INDEX_NAME}{_advice(directory)}")
    tensors: Tensors = {}
    types: set[str] = set()
    for shard, names in _read_index(directory).items():
        found = SafetensorsFile(directory / shard)
        if set(found) != names:
            differing = min(set(found) ^ names)
            place = "in the file, but not in the index" if differing in found else "in the index, but not in the file"
            raise FormatError(f"{directory / shard}: {differing} is {place}")
        tensors |= found
        types |= found.types
    return tensors, types


def _advice(directory: Path) -> str:
    """The end of the message for a directory without safetensors: pickles are named, with their remedy."""
    pickles = sorted(path.name for path in directory.glob("pytorch_model*.bin*"))
    if not pickles:
        return "; other weight files are not read"
    return f"; {pickles[0]} is a pickle, which may run code; load it with transformers and save it by save_pretrained"


def _read_index(directory: Path) -> dict[str, set[str]]:
    """File -> names of its tensors, from the index. Raises FormatError for a file outside `directory`."""
    path = directory / INDEX_NAME
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{path} has no weight_map from tensor names to files")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        # Only the name is checked: in a download cache the files are links to a common store.
        if (
            not isinstance(shard, str)
            or Path(shard).name != shard
            or "\\" in shard
            or not shard.endswith(".safetensors")
        ):
            raise FormatError(f"{path}: {name} is in {shard!r}, expected a .safetensors file of the same directory")
        shards.setdefault(shard, set()).add(name)
    for shard in shards:
        try:
            found = (directory / shard).is_file()
        except (OSError, ValueError):
            found = False  # a name too long, or with a NUL in it
        if not found:
            raise FormatError(f"{path}: {shard[:80]!r} is missing from the directory")
    return shards


def _with_standard_names(tensors: Tensors, config: ModelConfig, directory: Path) -> Tensors:
    """`tensors` with the names of a causal language model.

    A bare `LlamaModel` lacks the prefix `model.`. Rotary frequencies and a second copy of tied embeddings are dropped;
    transformers may store either of the two copies.
    """
    kept = {name: values for name, values in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    short_name = EMBEDDING.removeprefix(BODY)
    if short_name in kept and EMBEDDING not in kept:
        kept = {name if name == OUTPUT else f"{BODY}{name}": values for name, values in kept.items()}
        if not config.tie_embeddings and OUTPUT not in kept:
            raise FormatError(
                f"{directory} holds a bare LlamaModel: no {OUTPUT}, and tie_word_embeddings is not true, so it "
                "predicts no token. Save the LlamaForCausalLM that it belongs to"
            )
    if CLASSIFIER_HEAD in kept and OUTPUT not in kept:
        raise FormatError(
            f"{directory} holds a classifier ({CLASSIFIER_HEAD} and no {OUTPUT}), which generates no text; "
            "give the language model that it was made from"
        )
    if config.tie_embeddings and OUTPUT in kept:
        output = kept.pop(OUTPUT)
        if not np.array_equal(output, kept.setdefault(EMBEDDING, output)):
            raise FormatError(f"{directory}: tie_word_embeddings is true, but {OUTPUT} is not {EMBEDDING}")
    return kept
