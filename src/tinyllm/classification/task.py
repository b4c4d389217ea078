"""A classification task: its labels and its sentences, read, checked and encoded. Trains nothing, prints nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tinyllm.classification.examples import Example, number_names, read_examples
from tinyllm.config import FinetuneConfig, wrong_setting
from tinyllm.errors import ConfigError, MismatchError, UsageError
from tinyllm.model_dir import is_classifier
from tinyllm.progress import SILENT, Note

if TYPE_CHECKING:
    from tinyllm.classification.classifier import Classifier
    from tinyllm.model.transformer import Transformer
    from tinyllm.tokenizer.codec import Tokenizer

OpenModel = Callable[[], "tuple[Transformer, Tokenizer]"]
"""Loads the language model to start from, of any format."""


@dataclass(frozen=True)
class Task:
    """A classification task: labels, training sentences, and sentences of each evaluation split."""

    label_names: list[str]
    train: list[Example]
    splits: dict[str, list[Example]]
    """Name of each evaluation split, such as dev or test -> its sentences."""


@dataclass(frozen=True)
class LabelledRows:
    """Sentences as token ids with BOS, and their labels."""

    rows: list[list[int]]
    labels: list[int]


def read_task(
    train: Path,
    splits: Mapping[str, Path],
    label_names: Sequence[str] | None,
    note: Note = SILENT.note,
) -> Task:
    """Reads and checks every file. Without `label_names`, the numbers in the training file are the names.

    `note` gets one line for each file. Raises InputError or FormatError naming the first file that is wrong.
    """
    examples = read_examples(train, label_names)
    note(f"load {len(examples)} data from {train}")
    names = number_names(examples, str(train)) if label_names is None else list(label_names)
    found = {}
    for name, path in splits.items():
        found[name] = read_examples(path, names)
        note(f"load {len(found[name])} data from {path}")
    return Task(names, examples, found)


def finetune_config(**settings: float) -> FinetuneConfig:
    """A `FinetuneConfig` of `settings`. Raises ConfigError naming the first that is out of range."""
    try:
        return FinetuneConfig.model_validate(settings)
    except ValidationError as error:
        wrong = wrong_setting(error)
        # The two commands that fine-tune have different flags for dropout, so that setting keeps its name.
        raise ConfigError(wrong.message, parameter="" if wrong.parameter == "dropout" else wrong.parameter) from None


def check_limit(max_sentence_len: int | None) -> None:
    """Raises UsageError if `max_sentence_len` leaves no room for a token beside BOS."""
    if max_sentence_len is not None and max_sentence_len < 2:
        problem = f"max_sentence_len is {max_sentence_len}; at least 2 tokens are needed, BOS included"
        raise UsageError(problem, parameter="max_sentence_len")


def encode_all(
    texts: Mapping[str, Sequence[str]], tokenizer: "Tokenizer", limit: int, note: Note
) -> dict[str, list[list[int]]]:
    """Token ids of every sentence, by split; `note` gets one line if sentences were cut to `limit` tokens."""
    from tinyllm.classification.batches import encode_sentences

    encoded = {name: encode_sentences(sentences, tokenizer, limit) for name, sentences in texts.items()}
    num_cut = sum(part.num_cut for part in encoded.values())
    if num_cut:
        total = sum(map(len, texts.values()))
        note(f"{num_cut:,} of {total:,} sentences are longer than {limit} tokens; their ends were cut off")
    return {name: part.rows for name, part in encoded.items()}


def encode_task(task: Task, tokenizer: "Tokenizer", limit: int, note: Note) -> dict[str, LabelledRows]:
    """The sentences of "train" and of each split, encoded as `encode_all` does."""
    sentences = {"train": task.train, **task.splits}
    texts = {name: [example.text for example in examples] for name, examples in sentences.items()}
    rows = encode_all(texts, tokenizer, limit, note)
    return {name: LabelledRows(rows[name], [example.label for example in sentences[name]]) for name in sentences}


def open_classifier(
    path: Path, open_model: OpenModel, label_names: list[str], seed: int, device: str
) -> "tuple[Classifier, Tokenizer]":
    """The classifier at `path`, or the language model of `open_model` with a new head, and its tokenizer.

    Raises MismatchError for a classifier with other labels, and the errors of `open_model`.
    """
    from tinyllm.classification.classifier import Classifier
    from tinyllm.classification.classifier_dir import load_classifier
    from tinyllm.machine.device import pick_device

    if not is_classifier(path):
        model, found = open_model()
        return Classifier.from_language_model(model, label_names, seed), found
    classifier, found = load_classifier(path, pick_device(device))
    if classifier.label_names != label_names:
        raise MismatchError(
            f"{path} is a classifier of {', '.join(classifier.label_names)}, not of {', '.join(label_names)}; "
            "use its labels, or start from a language model"
        )
    return classifier, found
