"""Label names and tensor shapes of a classifier's directory, without torch."""

from pathlib import Path

from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError
from tinyllm.model.size import OUTPUT, parameter_shapes
from tinyllm.model_dir import read_json

HEAD = "score.weight"


def classifier_shapes(config: ModelConfig, num_labels: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of each parameter: those of the model, with the head in place of the output projection."""
    body = {name: shape for name, shape in parameter_shapes(config).items() if name != OUTPUT}
    return {**body, HEAD: (num_labels, config.hidden_size)}


def read_label_names(file: Path) -> list[str]:
    """The label names in `id2label` of a `config.json`, in the order of their ids.

    Raises FormatError if the ids do not count from 0.
    """
    names = read_json(file).get("id2label")
    if not isinstance(names, dict) or not names:
        raise FormatError(f"{file} has no id2label, which names a classifier's labels")
    ordered = [names.get(str(label)) for label in range(len(names))]
    if not all(isinstance(name, str) for name in ordered):
        raise FormatError(f"{file}: id2label does not name labels 0 to {len(names) - 1}")
    return [str(name) for name in ordered]
