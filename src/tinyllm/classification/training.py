"""Fine-tunes a classifier in the training loop, and saves the epoch with the best accuracy on the dev sentences.

The settings are the course's: AdamW at a constant rate, no weight decay, no clipping, dropout before the head. The
same seed gives the same weights on the same machine, stopped and resumed or not.

The run directory lies in the draft of the output, so nothing appears beside the output when training is done. A
stopped training leaves the draft, and the next one with the same inputs and settings goes on from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tinyllm import storage
from tinyllm.classification.batches import predict
from tinyllm.classification.classifier import Classifier
from tinyllm.classification.classifier_dir import load_classifier, save_classifier
from tinyllm.classification.events import Epoch, FinetuneReporter
from tinyllm.classification.examples import read_label_names
from tinyllm.classification.objective import Classification
from tinyllm.classification.scores import Scores
from tinyllm.classification.task import (
    LabelledRows,
    OpenModel,
    Task,
    encode_task,
    open_classifier,
    read_task,
)
from tinyllm.config import (
    Config,
    FinetuneConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
    TrainingSamplesConfig,
)
from tinyllm.config.layers import to_toml
from tinyllm.errors import DivergenceError, Interrupted, MismatchError
from tinyllm.model_dir import CLASSIFIER, is_classifier
from tinyllm.progress import Note, Progress
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.training.checkpoint import list_checkpoints, newest_whole_checkpoint, read_state
from tinyllm.training.inputs import compare_inputs, describe_inputs
from tinyllm.training.loop import Trainer
from tinyllm.training.objective import Evaluation
from tinyllm.training.reporter import TrainingReporter
from tinyllm.training.saved_model import SavedModel

OPTIMIZER = OptimizerConfig(beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0, grad_clip=0.0)
RUN = "run"
"""Name of the run directory in the draft."""
DETAILS = ("epoch", "dev_accuracy", "finetune")
"""Details in the manifest of a saved classifier."""


@dataclass(frozen=True)
class ClassifierDirectory:
    """The directory of the best classifier of a run."""

    path: Path
    classifier: Classifier
    tokenizer: Tokenizer
    config: FinetuneConfig
    batches_per_epoch: int

    def verify(self) -> None:
        """Raises ArtifactError if the directory exists and is damaged."""
        if self.path.exists():
            storage.verify(self.path, CLASSIFIER)

    def read(self) -> SavedModel | None:
        """Step and error rate of the saved classifier; None if there is none."""
        if not (self.path / storage.MANIFEST_NAME).exists():
            return None
        details = storage.read_manifest(self.path, CLASSIFIER).details
        return SavedModel((details["epoch"] + 1) * self.batches_per_epoch, 1 - details["dev_accuracy"], None)

    def save(self, step: int, evaluation: Evaluation, weights: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        """Commits the classifier, with its epoch and dev accuracy in the manifest."""
        epoch, accuracy = step // self.batches_per_epoch - 1, evaluation.record()["validation_accuracy"]
        details = dict(zip(DETAILS, (epoch, accuracy, self.config.model_dump()), strict=True))
        save_classifier(self.path, self.classifier, self.tokenizer, details)


def finetune(
    classifier: Classifier,
    tokenizer: Tokenizer,
    train: LabelledRows,
    dev: LabelledRows,
    config: FinetuneConfig,
    output: Path,
    reporter: FinetuneReporter,
) -> None:
    """Trains `classifier` in place and saves the best epoch's weights in the directory `output`.

    Continues a stopped training of the same output, if its inputs and settings were the same. Raises Interrupted after
    saving for a signal, and DivergenceError at the first loss or gradient that is not finite. Raises ArtifactError if
    the disk refuses or another command writes to `output`.
    """
    output = storage.follow_link(output)
    classifier.dropout.p = config.dropout
    objective = Classification(classifier, train, dev, config)
    run_config = _run_config(classifier, objective, config)
    with storage.hold(output, CLASSIFIER, resumable=True) as draft:
        run = draft.folder / RUN
        directory = ClassifierDirectory(run / "model", classifier, tokenizer, config, objective.batches_per_epoch)
        resume = _goes_on(run, run_config, objective, reporter.note)
        if not resume:
            storage.empty_draft(draft)
        trainer = Trainer(
            run_config,
            classifier.train(),
            objective,
            directory,
            run,
            device=classifier.device,
            reporter=_EpochReporter(run, objective.batches_per_epoch, reporter),
        )
        try:
            trainer.train(resume=resume, to_toml=to_toml)
        except Interrupted as stop:
            draft.keep = True
            epoch = trainer.state.step // objective.batches_per_epoch
            raise Interrupted(
                f"stopped in epoch {epoch} and saved; the same command goes on from there", stop.exit_code - 128
            ) from None
        except DivergenceError:
            epoch = (trainer.state.step - 1) // objective.batches_per_epoch
            kept = f"; the best epoch before it is in {output}" if _publish(directory.path, output) else ""
            raise DivergenceError(
                f"the loss or its gradient is not finite in epoch {epoch}{kept}", hint="try a lower `learning_rate`"
            ) from None
        except BaseException:
            draft.keep = bool(list_checkpoints(run / "checkpoints"))
            raise
        draft.keep = True
        _publish(directory.path, output)
        draft.keep = False


def read_epochs(run: Path, batches_per_epoch: int) -> list[Epoch]:
    """The epochs in the log of the run in `run`, in their order."""
    records = storage.read_json_lines(run / "metrics.jsonl")
    epochs: list[Epoch] = []
    for record in records:
        if "confusion" not in record:
            continue
        number = record["step"] // batches_per_epoch - 1
        updates = [r for r in records if "loss" in r and (r["step"] - 1) // batches_per_epoch == number]
        num_sentences = sum(update["num_sentences"] for update in updates)
        dev = Scores(tuple(map(tuple, record["confusion"])))
        epochs.append(
            Epoch(
                number,
                train_loss=sum(update["loss"] * update["num_sentences"] for update in updates) / num_sentences,
                train_accuracy=sum(update["num_right"] for update in updates) / num_sentences,
                dev=dev,
                is_best=all(dev.accuracy > earlier.dev.accuracy for earlier in epochs),
            )
        )
    return epochs


class _EpochReporter(TrainingReporter):
    """Turns the events of the loop into those of a `FinetuneReporter`.

    Drops the loop's notes: they name settings that a fine-tuning does not have, and files of its draft. Drops saved
    models, because `Epoch.is_best` says it.
    """

    def __init__(self, run: Path, batches_per_epoch: int, reporter: FinetuneReporter) -> None:
        self.run, self.batches_per_epoch, self.reporter = run, batches_per_epoch, reporter

    def advance(self, progress: Progress) -> None:
        """Reports the update, with the number of its epoch."""
        epoch = max(0, progress.done - 1) // self.batches_per_epoch
        self.reporter.advance(replace(progress, label=f"train-{epoch}"))

    def evaluation(self, record: dict[str, Any]) -> None:  # noqa: ARG002 (the log has the epoch's updates too)
        """Reports the epoch that was evaluated."""
        self.reporter.epoch(read_epochs(self.run, self.batches_per_epoch)[-1])


def _run_config(classifier: Classifier, objective: Classification, config: FinetuneConfig) -> Config:
    """The config of the loop: a constant rate, one batch an update, an evaluation and a checkpoint an epoch."""
    rate, epoch = config.learning_rate, objective.batches_per_epoch
    return Config(
        model=classifier.config,
        training=TrainingConfig(
            batch_size=config.batch_size,
            accumulation_steps=1,
            sequence_length=max(objective.lengths),
            eval_interval=epoch,
            checkpoint_interval=epoch,
            keep_checkpoints=1,
            max_bad_steps=1,
            seed=config.seed,
            device=str(classifier.device),
            dtype="float32",
            attention="fused",
            compile="off",
        ),
        schedule=ScheduleConfig(num_steps=config.epochs * epoch, peak=rate, floor=rate, warmup_steps=0),
        optimizer=OPTIMIZER,
        sample=TrainingSamplesConfig(num_samples=0),
    )


def _goes_on(run: Path, config: Config, objective: Classification, note: Note) -> bool:
    """Whether the run in `run`, if there is one, was stopped with the same inputs and settings; notes the answer."""
    checkpoint, complaints = newest_whole_checkpoint(run / "checkpoints")
    for complaint in complaints.values():
        note(complaint)
    if checkpoint is None:
        if complaints:
            note("no checkpoint of the stopped training is whole; this one starts anew")
        return False
    state = read_state(checkpoint)
    try:
        compare_inputs(state.inputs, describe_inputs(config, objective.inputs()), checkpoint)
    except MismatchError:
        note("a stopped training of this output had other sentences, settings or weights; this one starts anew")
        return False
    note(f"going on from the stopped training, after {state.step} of {config.schedule.num_steps} updates")
    return True


def _publish(best: Path, output: Path) -> bool:
    """Commits the classifier directory `best` at `output`; returns False if there is no such directory."""
    if not best.exists():
        return False
    classifier, tokenizer = load_classifier(best)
    details = storage.read_manifest(best, CLASSIFIER).details
    save_classifier(output, classifier, tokenizer, {name: details[name] for name in DETAILS})
    return True


def train_classifier(
    model: Path,
    open_model: OpenModel,
    train: Path,
    splits: Mapping[str, Path],
    label_names: Path | None,
    config: FinetuneConfig,
    output: Path,
    *,
    device: str,
    max_tokens: int | None,
    reporter: FinetuneReporter,
) -> tuple[Task, dict[str, list[int]]]:
    """Fine-tunes `model` on `train` and saves the best epoch on the split `dev` to `output`.

    `open_model` loads `model` if it is a language model. Returns the task, and the saved classifier's predictions for
    each split. Raises the errors of `read_task`, `open_classifier` and `finetune`.
    """
    names = None if label_names is None else read_label_names(label_names)
    if names is None and is_classifier(model):
        names = load_classifier(model)[0].label_names
    task = read_task(train, splits, names, reporter.loaded)
    classifier, tokenizer = open_classifier(model, open_model, task.label_names, config.seed, device)
    reporter.loaded(f"load model from {model}")
    context = classifier.config.context_length
    data = encode_task(task, tokenizer, min(max_tokens or context, context), reporter.note)
    finetune(classifier, tokenizer, data["train"], data["dev"], config, output, reporter)
    best, _ = load_classifier(output, classifier.device)
    return task, {name: predict(best.score_rows, data[name].rows, config.batch_size, reporter, name) for name in splits}
