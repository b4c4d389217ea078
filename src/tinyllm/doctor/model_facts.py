"""Reads the contents of a model directory or of another tool's model, without building the model and without torch.

`tinyllm info` presents these facts; FLOPs and cache sizes are in `tinyllm.model.size`.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from tinyllm.classification.labels import classifier_shapes, read_label_names
from tinyllm.config import ModelConfig
from tinyllm.exchange.write import tokenizer_of
from tinyllm.loading import find, read_model
from tinyllm.model import size
from tinyllm.model_dir import (
    BYTES_PER_NUMBER,
    CLASSIFIER,
    CONFIG_NAME,
    StoredTensor,
    check_shapes,
    is_classifier,
    open_weights,
    read_config,
    read_tensors,
    read_tokenizer,
    stored_tensors,
    verify_model,
)
from tinyllm.storage import MANIFEST_NAME, Manifest, verify
from tinyllm.tokenizer.codec import Tokenizer


@dataclass(frozen=True)
class Facts:
    """The contents of a model directory, without its weights."""

    path: Path
    manifest: Manifest | None
    config: ModelConfig
    tokenizer: Tokenizer
    tensors: dict[str, StoredTensor]
    source: str | None = None
    """The format of another tool's file; None for a model directory."""
    label_names: tuple[str, ...] = ()
    """A classifier's labels; empty for a language model."""

    @property
    def num_parameters(self) -> int:
        """Number of stored parameters; tied embeddings count once."""
        if self.label_names:
            return sum(prod(tensor.shape) for tensor in self.tensors.values())
        return size.num_parameters(self.config)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the stored weights, in their own dtypes."""
        return sum(prod(tensor.shape) * BYTES_PER_NUMBER[tensor.dtype] for tensor in self.tensors.values())


def read_model_facts(path: Path) -> Facts:
    """The facts of a model directory, a run directory, or another tool's file or directory.

    Checks every file that a manifest lists. Raises the errors of `load_model`, `load_classifier` and
    `tinyllm.loading.read_model`.
    """
    path = find(path)
    return _read_own_facts(path) if (path / MANIFEST_NAME).is_file() else _read_foreign_facts(path)


def _read_own_facts(path: Path) -> Facts:
    if is_classifier(path):
        return _read_classifier_facts(path)
    manifest = verify_model(path)
    return Facts(path, manifest, read_config(path), read_tokenizer(path), read_tensors(path))


def _read_classifier_facts(path: Path) -> Facts:
    manifest = verify(path, CLASSIFIER)
    config, labels, tensors = (
        read_config(path),
        read_label_names(path / CONFIG_NAME),
        stored_tensors(open_weights(path)),
    )
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    check_shapes(shapes, classifier_shapes(config, len(labels)), str(path))
    return Facts(path, manifest, config, read_tokenizer(path), tensors, label_names=tuple(labels))


def _read_foreign_facts(path: Path) -> Facts:
    model = read_model(path)
    tensors = {name: StoredTensor(tensor.shape, "F32") for name, tensor in model.tensors.items()}
    return Facts(path, None, model.config, tokenizer_of(model), tensors, model.source)
