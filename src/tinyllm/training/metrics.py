"""The logs of a run: metrics.jsonl, samples.jsonl, stops.jsonl, loss.svg, and TensorBoard if asked.

Records are written at once, on the first rank. A resumed run first removes records after the step that it resumes
from. `RunLog` also tells the reporter.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinyllm import storage
from tinyllm.errors import ResourceError, UsageError
from tinyllm.machine import ranks
from tinyllm.progress import Progress
from tinyllm.text_input import encodable
from tinyllm.training.loss_curve import CurveRecords, draw_loss_curve
from tinyllm.training.reporter import TrainingReporter
from tinyllm.training.stop_log import add_stop, drop_stops_after, read_stops


class MetricsLog:
    """The logs of one run directory."""

    def __init__(self, run: Path, *, step: int, tensorboard: bool = False) -> None:
        """Opens the logs of `run` and removes records after `step`. Raises UsageError if TensorBoard is missing."""
        self.run = run
        # At step 0 not even the evaluation of the initial weights is done, so no record stays.
        kept = step if step else -1
        self.metrics = storage.JsonLines(run / "metrics.jsonl", keep_through_step=kept)
        self.samples = storage.JsonLines(run / "samples.jsonl", keep_through_step=kept)
        self.curve = CurveRecords()
        for record in storage.read_json_lines(run / "metrics.jsonl"):
            self.curve.add(record)
        self.board = _open_tensorboard(run / "tensorboard", step) if tensorboard else None

    def write(self, record: dict[str, Any]) -> None:
        """Appends one line of metrics: `step` and its measurements."""
        self.metrics.append(record)
        self.curve.add(record)
        if self.board is not None:
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float):
                    self.board.add_scalar(name, value, record["step"])

    def write_sample(self, record: dict[str, Any]) -> None:
        """Appends one line of samples: `step`, `prompt` and `text`."""
        self.samples.append(record)

    def draw(self) -> None:
        """Writes loss.svg from all records."""
        title, stops = encodable(self.run.name), read_stops(self.run)
        storage.write_file(self.run / "loss.svg", draw_loss_curve(self.curve.records(), title, stops))

    def sync(self) -> None:
        """Flushes all lines to disk; called before a checkpoint, so that the logs reach its step."""
        self.metrics.sync()
        self.samples.sync()

    def close(self) -> None:
        """Closes the logs."""
        self.metrics.close()
        self.samples.close()
        if self.board is not None:
            self.board.close()


class RunLog:
    """The logs of a run: lines on disk and events for its reporter, on the first rank alone."""

    def __init__(self, run: Path, reporter: TrainingReporter) -> None:
        self.run = run
        self.reporter = reporter if ranks.is_first() else TrainingReporter()
        self.lines: MetricsLog | None = None
        self.first_step = 0

    def open(self, step: int, best_loss: float | None, *, tensorboard: bool) -> None:
        """Opens the logs of a run that continues from `step`, with its lowest validation loss if there is one.

        Raises UsageError if TensorBoard is missing.
        """
        self.first_step = step
        if ranks.is_first():
            drop_stops_after(self.run, step)
            self.lines = MetricsLog(self.run, step=step, tensorboard=tensorboard)
        self.reporter.started(step, best_loss)

    def note(self, message: str) -> None:
        """Tells the user one line."""
        self.reporter.note(message)

    def update(self, record: dict[str, Any], num_steps: int) -> None:
        """Writes and reports the metrics of an update, one of `num_steps`."""
        if self.lines is not None:
            self.lines.write(record)
        self.reporter.advance(Progress("training", record["step"], num_steps, "updates", self.first_step))
        self.reporter.step(record)

    def evaluation(self, record: dict[str, Any], *, written: bool = True, drawn: bool = True) -> None:
        """Reports the metrics of an evaluation; with `written` and `drawn` also in metrics.jsonl and loss.svg."""
        if self.lines is not None:
            if written:
                self.lines.write(record)
            elif drawn:
                self.lines.curve.add(record)
            if drawn:
                self.lines.draw()
        self.reporter.evaluation(record)

    def samples(self, step: int, prompt: str, draw: Callable[[], list[str]]) -> None:
        """Writes and reports the texts of `draw`. Notes if there is not enough memory for them, and goes on."""
        if self.lines is None:
            return
        try:
            texts = draw()
        except ResourceError as error:
            self.note(f"no samples at step {step}; lower sample.num_samples: {error}")
            return
        for text in texts:
            self.lines.write_sample({"step": step, "prompt": prompt, "text": text})
        self.reporter.samples(step, prompt, texts)

    def stopped(self, step: int, reason: str, measured: Mapping[str, Any] | None = None) -> None:
        """Writes that the run stopped at `step`, with its evaluation if `metrics.jsonl` lacks it; draws the curve."""
        if self.lines is not None:
            add_stop(self.run, step, reason, measured)
            self.lines.draw()

    def records(self) -> list[dict[str, Any]]:
        """The records of the loss curve, as of `CurveRecords.records`; none on other ranks."""
        return [] if self.lines is None else self.lines.curve.records()

    def sync(self) -> None:
        """Flushes all lines to disk."""
        if self.lines is not None:
            self.lines.sync()

    def close(self) -> None:
        """Closes the logs."""
        if self.lines is not None:
            self.lines.close()


def _open_tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "training.tensorboard needs the extra: pip install 'tinyllm[track]'", parameter="training.tensorboard"
        ) from None
    return SummaryWriter(str(folder), purge_step=step + 1)
