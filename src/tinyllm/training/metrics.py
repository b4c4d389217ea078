"""The logs of a run: metrics.jsonl, samples.jsonl, loss.svg, and TensorBoard if asked.

Records are written at once. A resumed run first removes records after the step that it resumes from.
"""

from pathlib import Path
from typing import Any

from tinyllm import storage
from tinyllm.errors import UsageError
from tinyllm.text_input import encodable
from tinyllm.training.loss_curve import CurveRecords, draw_loss_curve


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
        storage.write_file(self.run / "loss.svg", draw_loss_curve(self.curve.records(), title=encodable(self.run.name)))

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


def _open_tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("--training.tensorboard needs the extra: pip install 'tinyllm[track]'") from None
    return SummaryWriter(str(folder), purge_step=step + 1)
