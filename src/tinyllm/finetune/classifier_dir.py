"""A classifier on disk: a model directory whose config names its labels and whose weights hold the head.

That is Hugging Face's directory of a `LlamaForSequenceClassification`, with our manifest, of kind `classifier`.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tinyllm import storage
from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError
from tinyllm.finetune.classifier import Classifier
from tinyllm.model.hugging_face_config import to_hugging_face
from tinyllm.model.size import OUTPUT, parameter_shapes
from tinyllm.model_dir import (
    CLASSIFIER,
    CONFIG_NAME,
    WEIGHTS_NAME,
    check_shapes,
    commit_model,
    read_config,
    read_json,
    read_tokenizer,
    token_ids,
)
from tinyllm.tokenizer.codec import Tokenizer

HEAD = "score.weight"


def save_classifier(path: Path, classifier: Classifier, tokenizer: Tokenizer, details: dict[str, Any]) -> None:
    """Commits a classifier at `path`, replacing one that is there; `details` go into the manifest.

    Raises ArtifactError if the disk refuses, or `path` is something else that must not be replaced.
    """
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in classifier.state_dict().items()}
    content = {
        **to_hugging_face(classifier.config, "float32"),
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {str(label): name for label, name in enumerate(classifier.label_names)},
        "label2id": {name: label for label, name in enumerate(classifier.label_names)},
        **token_ids(tokenizer),
    }
    context = classifier.config.context_length
    commit_model(path, CLASSIFIER, weights, {CONFIG_NAME: content}, tokenizer, context, details)


def load_classifier(path: Path, device: torch.device | str = "cpu") -> tuple[Classifier, Tokenizer]:
    """The classifier in evaluation mode on `device`, without dropout, and its tokenizer.

    Raises ArtifactError for a damaged directory, FormatError or MismatchError for one whose parts do not fit.
    """
    storage.verify(path, CLASSIFIER)
    config, tokenizer = read_config(path), read_tokenizer(path)
    label_names = _label_names(path / CONFIG_NAME)
    try:
        state = load_file(path / WEIGHTS_NAME)
    except SafetensorError as error:
        raise FormatError(f"{path / WEIGHTS_NAME} is not a whole safetensors file: {error}") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    check_shapes(shapes, _parameter_shapes(config, len(label_names)), str(path))
    with torch.device("meta"):
        classifier = Classifier(config, label_names)
    classifier = classifier.to_empty(device=device).eval()
    with torch.no_grad():
        for name, parameter in classifier.named_parameters():
            parameter.copy_(state[name])
    return classifier, tokenizer


def _parameter_shapes(config: ModelConfig, num_labels: int) -> dict[str, tuple[int, ...]]:
    """The body's, and the head in the place of the output projection."""
    body = {name: shape for name, shape in parameter_shapes(config).items() if name != OUTPUT}
    return {**body, HEAD: (num_labels, config.hidden_size)}


def _label_names(file: Path) -> list[str]:
    """The names in `id2label`, in their order. Raises FormatError where they are not numbered from 0."""
    names = read_json(file).get("id2label")
    if not isinstance(names, dict) or not names:
        raise FormatError(f"{file} has no id2label, which names a classifier's labels")
    ordered = [names.get(str(label)) for label in range(len(names))]
    if not all(isinstance(name, str) for name in ordered):
        raise FormatError(f"{file}: id2label does not name labels 0 to {len(names) - 1}")
    return [str(name) for name in ordered]
