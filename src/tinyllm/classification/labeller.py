"""Labels sentences: by a classifier, or zero-shot by a language model that is asked a question."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tinyllm.classification.batches import predict
from tinyllm.classification.classifier_dir import load_classifier
from tinyllm.classification.examples import read_label_names
from tinyllm.classification.task import OpenModel, encode_all
from tinyllm.classification.zero_shot import QUESTION, ZeroShot
from tinyllm.errors import UsageError
from tinyllm.machine.device import pick_device
from tinyllm.model_dir import is_classifier
from tinyllm.progress import Reporter
from tinyllm.tokenizer.codec import Tokenizer


@dataclass(frozen=True)
class Labeller:
    """A loaded model that scores labels for sentences."""

    label_names: list[str]
    score_rows: Callable[[list[list[int]]], Tensor]
    """Scores (B, number of labels) of rows of token ids."""
    tokenizer: Tokenizer
    row_limit: int
    """Largest number of tokens of a sentence, BOS included."""


def open_labeller(
    path: Path, open_model: OpenModel, label_names: Path | None, question: str | None, device: str
) -> Labeller:
    """The classifier at `path`, or the language model of `open_model` with `question`, by default the course's.

    `label_names` is a JSON file with the labels of a language model. Raises UsageError if a classifier gets names or a
    question, and if a language model gets no names. Raises the errors of `open_model` and `ZeroShot`.
    """
    if is_classifier(path):
        if label_names or question:
            raise UsageError(
                f"{path} is a classifier with labels of its own", hint="leave out `label_names` and `question`"
            )
        classifier, tokenizer = load_classifier(path, pick_device(device))
        return Labeller(classifier.label_names, classifier.score_rows, tokenizer, classifier.config.context_length)
    if label_names is None:
        raise UsageError(f"{path} is not a classifier", hint="a language model needs `label_names` to choose from")
    names = read_label_names(label_names)
    model, tokenizer = open_model()
    zero_shot = ZeroShot(model, tokenizer, names, question or QUESTION)
    return Labeller(names, zero_shot.score_rows, tokenizer, zero_shot.row_limit)


def label_texts(
    labeller: Labeller, texts: Sequence[str], limit: int | None, batch_size: int, reporter: Reporter
) -> list[int]:
    """The number of the label of each text, cut to `limit` tokens (None: as many as the model takes).

    `reporter` gets the finished batches, and one line if texts were cut.
    """
    longest = min(limit or labeller.row_limit, labeller.row_limit)
    rows = encode_all({"sentences": texts}, labeller.tokenizer, longest, reporter.note)["sentences"]
    return predict(labeller.score_rows, rows, batch_size, reporter, "sentences")
