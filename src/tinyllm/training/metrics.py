"""What a run writes down while it learns: metrics.jsonl, samples.jsonl, loss.svg, and TensorBoard if asked.

Records are written as they happen; a run that goes on first drops those after the step it goes on from.
"""

from pathlib import Path
from typing import Any

from tinyllm import storage
from tinyllm.errors import UsageError
from tinyllm.training.loss_curve import CurveRecords, draw_loss_curve


class MetricsLog:
    """The logs of one run directory."""

    def __init__(self, run: Path, *, step: int, tensorboard: bool = False) -> None:
        """Opens the logs of `run` to go on after `step`. Raises UsageError for TensorBoard without its extra."""
        self.run = run
        # A run at step 0 has nothing behind it, not even the evaluation of its first weights.
        kept = step if step else -1
        self.metrics = storage.JsonLines(run / "metrics.jsonl", keep_through_step=kept)
        self.samples = storage.JsonLines(run / "samples.jsonl", keep_through_step=kept)
        self.curve = CurveRecords()
        for record in storage.read_json_lines(run / "metrics.jsonl"):
            self.curve.add(record)
        self.board = _open_tensorboard(run / "tensorboard", step) if tensorboard else None

    def write(self, record: dict[str, Any]) -> None:
        """One line of metrics: `step` and what was measured at it."""
        self.metrics.append(record)
        self.curve.add(record)
        if self.board is not None:
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float):
                    self.board.add_scalar(name, value, record["step"])

    def write_sample(self, record: dict[str, Any]) -> None:
        """One line of samples: `step`, `prompt` and `text`."""
        self.samples.append(record)

    def draw(self) -> None:
        """Brings loss.svg up to date."""
        storage.write_file(self.run / "loss.svg", draw_loss_curve(self.curve.records(), title=self.run.name))

    def sync(self) -> None:
        """Makes the lines so far durable: before a checkpoint, so that it never knows more steps than they."""
        self.metrics.sync()
        self.samples.sync()

    def close(self) -> None:
        """Ends the logs; what was written is already on disk."""
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
