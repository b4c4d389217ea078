"""Functions shared by the classify commands: read and encode sentences, open models, show progress and scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinyllm import storage
from tinyllm.classification.examples import (
    Example,
    majority_label,
    number_names,
    read_examples,
    read_label_names,
)
from tinyllm.classification.scores import Scores, score
from tinyllm.cli.console import escape_controls, note
from tinyllm.cli.progress import progress_bar
from tinyllm.config import FinetuneConfig, first_problem
from tinyllm.errors import ConfigError, MismatchError, UsageError
from tinyllm.model_dir import CLASSIFIER, is_classifier

if TYPE_CHECKING:
    from tinyllm.classification.classifier import Classifier
    from tinyllm.classification.loop import Epoch
    from tinyllm.tokenizer.codec import Tokenizer


@dataclass(frozen=True)
class Task:
    """A classification task: labels, training sentences, and sentences of each evaluation split."""

    label_names: list[str]
    train: list[Example]
    splits: dict[str, list[Example]]
    """Name of each evaluation split, such as dev or test -> its sentences."""


def read_task(train: Path, splits: Mapping[str, Path], label_names: Sequence[str] | None) -> Task:
    """Reads and checks every file. Without `label_names`, the numbers in the training file are the names."""
    examples = read_examples(train, label_names)
    print(f"load {len(examples)} data from {train}")
    names = number_names(examples, str(train)) if label_names is None else list(label_names)
    found = {}
    for name, path in splits.items():
        found[name] = read_examples(path, names)
        print(f"load {len(found[name])} data from {path}")
    return Task(names, examples, found)


def finetune_config(**settings: float) -> FinetuneConfig:
    """A `FinetuneConfig` of `settings`. Raises ConfigError naming the first that is out of range."""
    try:
        return FinetuneConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(first_problem(error)) from None


def check_limit(max_tokens: int | None) -> None:
    """Raises UsageError if `max_tokens` leaves no room for a token beside BOS."""
    if max_tokens is not None and max_tokens < 2:
        raise UsageError(f"--max_sentence_len is {max_tokens}; at least 2 tokens are needed, BOS included")


def check_output_directory(output: Path, model: Path, *, overwrite: bool) -> None:
    """Raises UsageError or ArtifactError if a classifier cannot be written to `output`."""
    if output.exists() and model.exists() and output.samefile(model):
        raise UsageError(f"{output} is the model to start from; name another directory for the classifier")
    storage.check_replaceable(output, CLASSIFIER, overwrite=overwrite)
    storage.check_writable(output)


def train_classifier(
    model: Path,
    tokenizer_file: Path | None,
    train: Path,
    splits: Mapping[str, Path],
    label_names: Path | None,
    config: FinetuneConfig,
    output: Path,
    device: str,
    max_tokens: int | None = None,
) -> "tuple[Task, dict[str, list[int]]]":
    """Fine-tunes on `train` and saves the best epoch on the split `dev` to `output`.

    Returns the task, and the saved classifier's predictions for each split.
    """
    from tinyllm.classification.batches import predict
    from tinyllm.classification.classifier_dir import load_classifier
    from tinyllm.classification.loop import LabelledRows, finetune

    names = None if label_names is None else read_label_names(label_names)
    if names is None and is_classifier(model):
        names = load_classifier(model)[0].label_names
    task = read_task(train, splits, names)
    classifier, tokenizer = open_classifier(model, tokenizer_file, task.label_names, config.seed, device)
    print(f"load model from {model}")
    sentences = {"train": task.train, **task.splits}
    limit = min(max_tokens or classifier.config.context_length, classifier.config.context_length)
    rows = encode_all({name: [e.text for e in examples] for name, examples in sentences.items()}, tokenizer, limit)
    data = {name: LabelledRows(rows[name], [e.label for e in examples]) for name, examples in sentences.items()}
    finetune(classifier, tokenizer, data["train"], data["dev"], config, output, track, show_epoch)
    best, _ = load_classifier(output, classifier.device)
    return task, {name: predict(best.score_rows, rows[name], config.batch_size, track, name) for name in splits}


def open_classifier(
    path: Path, tokenizer: Path | None, label_names: list[str], seed: int, device: str
) -> "tuple[Classifier, Tokenizer]":
    """The classifier at `path`, or the language model at `path` with a new head, and its tokenizer.

    Raises MismatchError for a classifier with other labels, and the errors of `open_model`.
    """
    from tinyllm import loading
    from tinyllm.classification.classifier import Classifier
    from tinyllm.classification.classifier_dir import load_classifier
    from tinyllm.machine.device import pick_device

    if not is_classifier(path):
        model, found = loading.open_model(path, tokenizer, pick_device(device))
        return Classifier.from_language_model(model, label_names, seed), found
    classifier, found = load_classifier(path, pick_device(device))
    if classifier.label_names != label_names:
        raise MismatchError(
            f"{path} is a classifier of {', '.join(classifier.label_names)}, not of {', '.join(label_names)}; "
            "use its labels, or start from a language model"
        )
    return classifier, found


def encode_all(texts: Mapping[str, Sequence[str]], tokenizer: "Tokenizer", limit: int) -> dict[str, list[list[int]]]:
    """Token ids of every sentence, by split; prints one note if sentences were cut to `limit` tokens."""
    from tinyllm.classification.batches import encode_sentences

    encoded = {name: encode_sentences(sentences, tokenizer, limit) for name, sentences in texts.items()}
    num_cut = sum(part.num_cut for part in encoded.values())
    if num_cut:
        total = sum(map(len, texts.values()))
        note(f"{num_cut:,} of {total:,} sentences are longer than {limit} tokens; their ends were cut off")
    return {name: part.rows for name, part in encoded.items()}


def track(batches: Sequence[list[int]], description: str) -> Iterator[list[int]]:
    """Yields the batches, with a progress bar on a terminal."""
    with progress_bar() as bar:
        yield from bar.track(batches, description=description)


def show_epoch(epoch: "Epoch") -> None:
    """Prints the scores of one epoch in the course's format."""
    kept = ", kept" if epoch.is_best else ""
    print(
        f"epoch {epoch.number}: train loss :: {epoch.train_loss:.3f}, train acc :: {epoch.train_accuracy:.3f}, "
        f"dev acc :: {epoch.dev.accuracy:.3f}{kept}",
        flush=True,
    )


def show_task_scores(task: Task, predictions: Mapping[str, list[int]]) -> None:
    """Prints the scores of each split, and those of always predicting the most frequent training label."""
    majority = majority_label(task.train)
    for name, examples in task.splits.items():
        labels = [example.label for example in examples]
        found = score(labels, predictions[name], len(task.label_names))
        constant = score(labels, [majority] * len(labels), len(task.label_names))
        print()
        show_scores(name, found, task.label_names, Console(highlight=False, soft_wrap=True))
        print(f"always {task.label_names[majority]!r}: {_summary(constant)}")


def show_scores(name: str, scores: Scores, label_names: Sequence[str], console: Console) -> None:
    """Prints accuracy, macro F1 and the confusion matrix on `console`."""
    console.print(f"{name}: {_summary(scores)} on {scores.num_sentences:,} sentences", markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("true \\ predicted")
    for label in map(escape_controls, label_names):
        table.add_column(Text(label), justify="right")
    for label, row in zip(label_names, scores.confusion, strict=True):
        table.add_row(Text(escape_controls(label)), *map(str, row))
    console.print(table)


def _summary(scores: Scores) -> str:
    return f"accuracy {scores.accuracy:.3f}, macro F1 {scores.macro_f1:.3f}"


def check_prediction_files(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raises UsageError or ArtifactError if predictions cannot be written, or would replace an input."""
    outputs, read = list(outputs), {path.absolute() for path in inputs}
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise UsageError("two predictions would be written to the same file; name two files")
    for path in outputs:
        if path.is_dir():
            raise UsageError(f"{path} is a directory; name a file to write the predictions to")
        if path.absolute() in read:
            raise UsageError(f"{path} is an input; name another file to write the predictions to")
        storage.check_writable(path)
