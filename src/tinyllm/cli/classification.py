"""Functions shared by the classify commands: check outputs, train, show progress and scores."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinyllm import loading, storage
from tinyllm.classification.events import Epoch, FinetuneReporter
from tinyllm.classification.examples import majority_label
from tinyllm.classification.scores import Scores, score
from tinyllm.classification.task import Task
from tinyllm.cli.console import escape_controls
from tinyllm.cli.progress import Display
from tinyllm.config import FinetuneConfig
from tinyllm.errors import UsageError
from tinyllm.machine.device import pick_device
from tinyllm.model_dir import CLASSIFIER


def check_output_directory(output: Path, model: Path, *, overwrite: bool) -> None:
    """Raises UsageError or ArtifactError if a classifier cannot be written to `output`."""
    if output.exists() and model.exists() and output.samefile(model):
        raise UsageError(f"{output} is the model to start from; name another directory for the classifier")
    storage.check_replaceable(output, CLASSIFIER, overwrite=overwrite)
    storage.check_writable(output)


class FinetuneDisplay(Display, FinetuneReporter):
    """Prints the course's lines, and shows a bar on a terminal."""

    def loaded(self, message: str) -> None:
        """Prints the line."""
        print(message)

    def epoch(self, epoch: Epoch) -> None:
        """Prints the scores of the epoch in the course's format."""
        kept = ", kept" if epoch.is_best else ""
        print(
            f"epoch {epoch.number}: train loss :: {epoch.train_loss:.3f}, train acc :: {epoch.train_accuracy:.3f}, "
            f"dev acc :: {epoch.dev.accuracy:.3f}{kept}",
            flush=True,
        )


def train_with_display(
    model: Path,
    tokenizer: Path | None,
    train: Path,
    splits: Mapping[str, Path],
    label_names: Path | None,
    config: FinetuneConfig,
    output: Path,
    *,
    device: str,
    max_tokens: int | None,
) -> tuple[Task, dict[str, list[int]]]:
    """Trains a classifier and shows the progress; result and errors are those of `train_classifier`.

    `model` and `tokenizer` are paths of any format. Raises UsageError for a `device` that is not there, first of all.
    """
    pick_device(device)
    from tinyllm.classification.training import train_classifier

    with FinetuneDisplay() as display:
        return train_classifier(
            model,
            lambda: loading.open_model(model, tokenizer, pick_device(device)),
            train,
            splits,
            label_names,
            config,
            output,
            device=device,
            max_tokens=max_tokens,
            reporter=display,
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
