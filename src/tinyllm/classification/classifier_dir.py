"""Saves and loads classifiers: model directories whose config names the labels and whose weights include the head.

The format is Hugging Face's directory of a `LlamaForSequenceClassification`, with our manifest of kind `classifier`.
"""

from pathlib import Path
from typing import Any

import torch

from tinyllm import storage
from tinyllm.classification.classifier import Classifier
from tinyllm.classification.labels import classifier_shapes, read_label_names
from tinyllm.model.hugging_face_config import to_hugging_face
from tinyllm.model.materialize import materialize
from tinyllm.model_dir import (
    CLASSIFIER,
    CONFIG_NAME,
    check_shapes,
    commit_model,
    open_weights,
    read_config,
    read_tokenizer,
    token_ids,
)
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.files import padding_id


def save_classifier(path: Path, classifier: Classifier, tokenizer: Tokenizer, details: dict[str, Any]) -> None:
    """Commits a classifier at `path`, replacing an existing classifier; `details` go into the manifest.

    Raises ArtifactError if the disk refuses, or if `path` holds anything but a classifier.
    """
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in classifier.state_dict().items()}
    content = {
        **to_hugging_face(classifier.config, "float32"),
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {str(label): name for label, name in enumerate(classifier.label_names)},
        "label2id": {name: label for label, name in enumerate(classifier.label_names)},
        **token_ids(tokenizer),
        # transformers finds the last token of each sentence in a batch by this id.
        "pad_token_id": padding_id(tokenizer),
    }
    context = classifier.config.context_length
    commit_model(path, CLASSIFIER, weights, {CONFIG_NAME: content}, tokenizer, context, details)


def load_classifier(path: Path, device: torch.device | str = "cpu") -> tuple[Classifier, Tokenizer]:
    """The classifier in evaluation mode on `device`, without dropout, and its tokenizer.

    Raises ArtifactError for a damaged directory, FormatError or MismatchError if its files do not fit together.
    """
    storage.verify(path, CLASSIFIER)
    config, tokenizer = read_config(path), read_tokenizer(path)
    label_names = read_label_names(path / CONFIG_NAME)
    tensors = open_weights(path)
    shapes = {name: entry.shape for name, entry in tensors.entries.items()}
    check_shapes(shapes, classifier_shapes(config, len(label_names)), str(path))
    return materialize(lambda: Classifier(config, label_names), tensors, device), tokenizer
