"""Saves, finds, reads and verifies the native model directory: a Hugging Face Llama directory with our manifest.

    config.json  generation_config.json  model.safetensors  manifest.json  and the tokenizer's files

Model and tokenizer are always stored together. A foreign directory without a manifest is read too; then only names,
shapes and sizes can be checked. Sharded weights, other formats and pickles are not read here.

Only `save_model`, `commit_model` and `load_model` import torch; engines and commands without torch use the rest.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tinyllm import storage
from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, InputError, MismatchError
from tinyllm.json_file import read_json_object
from tinyllm.model import size
from tinyllm.model.hugging_face_config import end_ids, from_hugging_face, to_hugging_face
from tinyllm.safetensors_file import SafetensorsFile
from tinyllm.storage.remote.fetch import fetch
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.files import hugging_face_files, padding_id
from tinyllm.tokenizer.opening import open_tokenizer

if TYPE_CHECKING:
    import torch

    from tinyllm.model.transformer import Transformer

BUNDLED_NAME = "storybook"
CONFIG_NAME = "config.json"
GENERATION_NAME = "generation_config.json"
END_IDS = "end_token_ids"
"""Key of the manifest for the ids of tokens that end a text. Without this key, BOS and EOS end a text."""
WEIGHTS_NAME = "model.safetensors"
MODEL, CLASSIFIER = "model", "classifier"
"""Kinds of a manifest: a language model, or a classifier (a decoder with a head that gives labels)."""
CONFIG_LIMIT_BYTES = 2**20
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""Name of each allowed dtype in safetensors -> its name in torch and `config.json`."""
BYTES_PER_NUMBER = {"F32": 4, "BF16": 2, "F16": 2}


class StoredTensor(NamedTuple):
    """Shape and dtype of one tensor in the weights file."""

    shape: tuple[int, ...]
    dtype: str


def bundled_model() -> Path:
    """The directory of the model in the package. Raises InputError if this installation has none."""
    path = Path(__file__).parent / "bundled" / BUNDLED_NAME
    if not (path / CONFIG_NAME).is_file():
        raise InputError(f"this installation has no bundled model at {path}; name a model directory of your own")
    return path


def find_model(path: str | Path) -> Path:
    """The model directory at `path`, or the best model `path/model` of the run directory `path`.

    The name `storybook` is the bundled model where no such file exists. A directory at an address is fetched.
    Raises InputError if there is none, and the errors of `fetch`.
    """
    path = fetch(path, below=("model",))
    try:
        for candidate in (path, path / "model"):
            if (candidate / CONFIG_NAME).is_file():
                return candidate
    except OSError as error:
        # A prompt in place of a model is too long for a path.
        raise InputError(f"model {str(path)[:40]}… is not a directory: {error.strerror}") from None
    if str(path) == BUNDLED_NAME and not path.exists():
        return bundled_model()
    if not path.is_dir():
        reason = "is a file, not a model directory" if path.exists() else "does not exist"
        raise InputError(f"model {path} {reason}; a model directory has a {CONFIG_NAME} and a {WEIGHTS_NAME}")
    raise InputError(f"{path} is not a model directory: it has no {CONFIG_NAME}")


def save_model(
    path: str | Path,
    model: "Transformer | Mapping[str, torch.Tensor]",
    config: ModelConfig,
    tokenizer: Tokenizer,
    *,
    details: Mapping[str, Any] | None = None,
    dtype: "torch.dtype | None" = None,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Commits a model directory at `path`, replacing an existing one.

    `model` is a module or its state dict. `dtype` rounds the weights; None keeps their dtype. `details` go into the
    manifest. `check` is called with the finished draft and refuses it by raising. Raises MismatchError if weights,
    config and tokenizer do not fit together, ArtifactError if the disk refuses.
    """
    import torch

    state = model.state_dict() if isinstance(model, torch.nn.Module) else model
    weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state.items()}
    stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    _check_tensors(stored, config, "the model to save")
    _check_tokenizer(tokenizer, config, None, "the model to save")
    number_type = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    json_files = {
        CONFIG_NAME: {**to_hugging_face(config, number_type), **token_ids(tokenizer)},
        GENERATION_NAME: generation_ids(tokenizer),
    }
    facts = {
        "num_parameters": size.num_parameters(config),
        "dtype": number_type,
        END_IDS: sorted(tokenizer.end_ids),
        **(details or {}),
    }
    commit_model(Path(path), MODEL, weights, json_files, tokenizer, config.context_length, facts, check)


def commit_model(
    path: Path,
    kind: str,
    weights: Mapping[str, "torch.Tensor"],
    json_files: Mapping[str, Mapping[str, Any]],
    tokenizer: Tokenizer,
    context_length: int,
    details: Mapping[str, Any],
    check: Callable[[Path], None] | None = None,
) -> None:
    """Commits weights, JSON files (name -> content) and the tokenizer's files as a directory of `kind`.

    Does not check that they fit together. Raises ArtifactError if the disk refuses, or if `path` holds anything that
    must not be replaced.
    """
    from safetensors.torch import save_file

    needed_bytes = sum(tensor.nbytes for tensor in weights.values())
    with storage.commit_directory(path, kind, needed_bytes=needed_bytes, check=check) as draft:
        draft.write(WEIGHTS_NAME, lambda file: save_file(dict(weights), file, metadata={"format": "pt"}))
        for name, value in json_files.items():
            draft.write(name, json.dumps(value, indent=2) + "\n")
        for name, content in hugging_face_files(tokenizer, context_length).items():
            draft.write(name, content)
        draft.details = {"tokenizer_fingerprint": tokenizer.fingerprint, **details}


def load_model(
    path: str | Path, device: "torch.device | str" = "cpu", dtype: "torch.dtype | None" = None
) -> "tuple[Transformer, Tokenizer]":
    """The model in evaluation mode on `device`, in `dtype` (None = float32), and its tokenizer.

    Raises InputError, FormatError or ArtifactError for a missing, foreign or damaged directory, MismatchError if
    weights or tokenizer do not fit the config.
    """
    from tinyllm.model.materialize import materialize
    from tinyllm.model.transformer import Transformer

    path = find_model(path)
    verify_model(path)
    config, tokenizer = read_config(path), read_tokenizer(path)
    return materialize(lambda: Transformer(config), open_tensors(path), device, dtype), tokenizer


def verify_model(path: Path) -> storage.Manifest | None:
    """Checks every file against the manifest and returns it; None for a foreign directory without a manifest.

    Raises ArtifactError naming the first file that is missing or damaged, InputError for a classifier.
    """
    if not (path / storage.MANIFEST_NAME).exists():
        return None
    if is_classifier(path):
        raise InputError(
            f"{path} holds a classifier, which gives labels and no text",
            hint="label sentences with it: `label_texts(CLASSIFIER, SENTENCES)`",
        )
    return storage.verify(path, MODEL)


def is_classifier(path: Path) -> bool:
    """Whether the manifest of `path` has the kind `classifier` (see `finetune`)."""
    return (path / storage.MANIFEST_NAME).is_file() and storage.read_manifest(path).kind == CLASSIFIER


def read_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a model directory. Raises MismatchError if the model was trained with another one."""
    path = find_model(path)
    tokenizer = open_tokenizer(path)
    recorded = None
    if (path / storage.MANIFEST_NAME).exists():
        recorded = storage.read_manifest(path).details.get("tokenizer_fingerprint")
    _check_tokenizer(tokenizer, read_config(path), recorded, str(path))
    ends = read_end_ids(path)
    return tokenizer if ends is None else tokenizer.with_rules(end_ids=ends)


def read_end_ids(path: Path) -> frozenset[int] | None:
    """Ids of the tokens that end a text of the model in directory `path`; None if these are BOS and EOS.

    Raises FormatError for a value that is not a token id.
    """
    if (path / storage.MANIFEST_NAME).exists() and END_IDS not in storage.read_manifest(path).details:
        return None  # a classifier, or a model of a version that did not record end tokens
    generation = path / GENERATION_NAME
    found = read_json(generation) if generation.is_file() else None
    return end_ids(read_json(path / CONFIG_NAME), found, str(path))


def read_tensors(path: str | Path) -> dict[str, StoredTensor]:
    """Shape and dtype of each tensor of a model directory, from its weights file; errors as `open_tensors`."""
    return stored_tensors(open_tensors(path))


def open_tensors(path: str | Path) -> SafetensorsFile:
    """The tensors of a model directory by name, each read as float32 on access.

    Raises InputError if the file is missing, FormatError if it is damaged or has a dtype outside `DTYPES`. Raises
    MismatchError if it does not fit the config.
    """
    path = find_model(path)
    opened = open_weights(path)
    shapes = {name: entry.shape for name, entry in opened.entries.items()}
    _check_tensors(shapes, read_config(path), str(path))
    return opened


def open_weights(path: Path) -> SafetensorsFile:
    """The tensors in the directory `path`, without a check against its config; for classifiers too.

    Raises InputError and FormatError as `open_tensors` does.
    """
    file = path / WEIGHTS_NAME
    if not file.is_file():
        raise InputError(f"{file} is missing; weights are read from this one file, not from shards or .bin files")
    opened = SafetensorsFile(file)
    for name, entry in opened.entries.items():
        if entry.type not in DTYPES:
            raise FormatError(f"{file}: {name} holds {entry.type} numbers; weights are {', '.join(DTYPES)}")
    return opened


def stored_tensors(opened: SafetensorsFile) -> dict[str, StoredTensor]:
    """Shape and dtype of each tensor of an opened file."""
    return {name: StoredTensor(entry.shape, entry.type) for name, entry in opened.entries.items()}


def read_config(path: str | Path) -> ModelConfig:
    """The `ModelConfig` of a model directory, from its `config.json`. Raises FormatError if it is not a Llama 2."""
    file = find_model(path) / CONFIG_NAME
    return from_hugging_face(read_json(file), str(file))


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a model directory. Raises FormatError for anything else."""
    return read_json_object(file, CONFIG_LIMIT_BYTES)


def token_ids(tokenizer: Tokenizer) -> dict[str, int | None]:
    """The ids of special tokens for `config.json`.

    pad_token_id is null unless the tokenizer has a padding token: transformers does not train its embedding.
    """
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }


def generation_ids(tokenizer: Tokenizer) -> dict[str, int | list[int] | None]:
    """The ids for `generation_config.json`: BOS, every token that ends a text, and a padding token for batches."""
    ends = sorted(tokenizer.end_ids, key=lambda id: (id != tokenizer.eos_id, id))
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": padding_id(tokenizer),
    }


def check_shapes(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raises MismatchError listing tensors that are missing, unexpected, or of another shape than `expected`."""
    problems = {
        "missing": [name for name in expected if name not in shapes],
        "unexpected": [name for name in shapes if name not in expected],
        "misshaped": [
            f"{name} {list(shapes[name])} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in shapes and tuple(shapes[name]) != shape
        ],
    }
    parts = [f"{len(names)} {problem} ({_some(names)})" for problem, names in problems.items() if names]
    if parts:
        raise MismatchError(f"the weights of {where} do not fit its {CONFIG_NAME}: {'; '.join(parts)}")


def _check_tensors(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig, where: str) -> None:
    # Redundant tensors of old files: rotary frequencies, and a second copy of tied embeddings.
    harmless = {name for name in shapes if name.endswith("rotary_emb.inv_freq")}
    if config.tie_embeddings:
        harmless.add(size.OUTPUT)
    kept = {name: shape for name, shape in shapes.items() if name not in harmless}
    check_shapes(kept, size.parameter_shapes(config), where)


def _check_tokenizer(tokenizer: Tokenizer, config: ModelConfig, fingerprint: object, where: str) -> None:
    if tokenizer.vocab_size != config.vocab_size:
        raise MismatchError(
            f"model and tokenizer of {where} do not match: the model has {config.vocab_size} tokens, "
            f"the tokenizer has {tokenizer.vocab_size}; give the model the tokenizer it was trained with"
        )
    if fingerprint is not None and fingerprint != tokenizer.fingerprint:
        raise MismatchError(
            f"model and tokenizer of {where} do not match: the model was trained with a tokenizer of as many tokens "
            "but another content; give it that one"
        )


def _some(names: list[str]) -> str:
    """The first three of `names`, joined for a message."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
