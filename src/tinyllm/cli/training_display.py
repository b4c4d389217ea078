"""The progress of a training run: a display that moves on a terminal, else lines.

    step 1,240 of 5,000 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  24 %   3:12 left
    loss 2.3411   best validation loss 2.4102   epoch 3.24
    gradient norm 0.71   24,310 tokens/s   memory 912 MB
    sample at step 1,000:
    Once upon a time, there was a little fox who lived in a wood ...

A narrow terminal shows fewer numbers; the time left is the last one to go.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from tinyllm.cli.console import escape_controls, note
from tinyllm.cli.progress import stderr
from tinyllm.config import Config
from tinyllm.machine.memory import used_memory_bytes
from tinyllm.training.pace import Clock, Pace, show_size, show_time
from tinyllm.training.reporter import TrainingReporter

GAP = "   "
LEAST_BAR = 10
"""Fewest columns of a bar that is worth showing."""
SAMPLE_LINES = 5
LEAST_SAMPLE = 20
"""Fewest columns for a sample."""
SAMPLE_CHARACTERS = 300
"""Length of a sample where output is lines."""
REFRESHES_PER_SECOND = 4


class TrainingDisplay(TrainingReporter):
    """Shows the newest numbers on a terminal, else a line at each log interval; and a line for each evaluation."""

    def __init__(self, config: Config, *, console: Console = stderr, clock: Clock = time.monotonic) -> None:
        self.config, self.console = config, console
        # A dumb terminal, as in Emacs, cannot overwrite lines: rich would show the numbers once, at the end.
        self.moves = console.is_terminal and not console.is_dumb_terminal
        self.numbers = RunNumbers(config, clock)
        self._live = Live(self.numbers, console=console, refresh_per_second=REFRESHES_PER_SECOND)

    def __enter__(self) -> Self:
        if self.moves:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with _ignoring_lost_output():
            self._live.stop()

    def note(self, message: str) -> None:
        """Prints one line, above the display if there is one."""
        with _ignoring_lost_output():
            self.console.print(escape_controls(message), markup=False) if self.moves else note(message)

    def started(self, step: int, best_loss: float | None) -> None:
        """Shows the step and the best validation loss that the run begins with."""
        self.numbers.first_step, self.numbers.best_loss = step, math.inf if best_loss is None else best_loss

    def step(self, record: dict[str, Any]) -> None:
        """Shows the numbers of the update, or prints a line every `log_interval` steps."""
        self.numbers.update(record)
        is_due = record["step"] == 1 or record["step"] % self.config.training.log_interval == 0
        if is_due and not self.moves:
            self.note(self.numbers.line())

    def evaluation(self, record: dict[str, Any]) -> None:
        """Prints the validation loss."""
        loss = record["validation_loss"]
        self.numbers.evaluated(loss)
        self.note(f"step {record['step']}: validation loss {loss:.4f}, {record['bits_per_byte']:.4f} bits per byte")

    def samples(self, step: int, prompt: str, texts: Sequence[str]) -> None:
        """Shows the first sample below the numbers, or prints its beginning on one line."""
        if not texts:
            return
        self.numbers.sample_step, self.numbers.sample = step, prompt + texts[0]
        if not self.moves:
            text = " ".join(self.numbers.sample.split())
            self.note(f"sample at step {step}: {_shortened(text, SAMPLE_CHARACTERS)}")


class RunNumbers:
    """The newest numbers of a run, as rich shows them in any width."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self.num_steps = config.schedule.num_steps
        self.pace = Pace(self.num_steps, config.training.max_minutes, clock)
        self.record: dict[str, Any] = {}
        self.first_step, self.best_loss = 0, math.inf
        self.sample_step, self.sample = 0, ""
        self.memory: Callable[[], int | None] = used_memory_bytes
        """Returns the bytes of memory in use."""

    def update(self, record: dict[str, Any]) -> None:
        """Takes the numbers of an update."""
        self.record = record
        self.pace.reached(record["step"])

    def evaluated(self, loss: float) -> None:
        """Takes a validation loss."""
        self.best_loss = min(self.best_loss, loss)

    def line(self) -> str:
        """All numbers on one line."""
        step, rate = self.record["step"], f"learning rate {self.record['learning_rate']:.2e}"
        fields = [*self._losses(), rate, *self._speeds(), f"{show_time(self.pace.seconds_left())} left"]
        return "  ".join([f"step {step}/{self.num_steps}", *fields])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        step = self.record.get("step", self.first_step)
        yield progress_line(step, self.num_steps, show_time(self.pace.seconds_left()), width)
        for fields in (self._losses(), self._speeds()):
            if line := fitting(fields, width):
                yield Text(line, no_wrap=True)
        if self.sample and width >= LEAST_SAMPLE:
            yield Text(_shortened(f"sample at step {self.sample_step:,}:", width), style="dim", no_wrap=True)
            yield from _first_lines(self.sample, console, width)

    def _losses(self) -> list[str]:
        best = f"{self.best_loss:.4f}" if math.isfinite(self.best_loss) else "-"
        return [
            f"loss {_show(self.record, 'loss', '.4f')}",
            f"best validation loss {best}",
            f"epoch {_show(self.record, 'epoch', '.2f')}",
        ]

    def _speeds(self) -> list[str]:
        num_bytes = self.memory()
        memory = [] if num_bytes is None else [f"memory {show_size(num_bytes)}"]
        return [
            f"gradient norm {_show(self.record, 'grad_norm', '.2f')}",
            f"{_show(self.record, 'tokens_per_second', ',.0f')} tokens/s",
            *memory,
        ]


def progress_line(step: int, num_steps: int, time_left: str, width: int) -> Text:
    """Step, bar, percent and time left in `width` columns; the time left stays longest, then the step."""
    end = f"{time_left} left"
    steps, percent = f"step {step:,} of {num_steps:,}", f"{100 * step // max(1, num_steps):3} %"
    if len(end) > width:
        return Text(time_left, no_wrap=True)
    if len(steps) + len(GAP) + len(end) > width:
        return Text(end, no_wrap=True)
    line = Text(steps, no_wrap=True)
    bar = width - len(f"{steps}  {percent}{GAP}{end}")
    if bar >= LEAST_BAR:
        num_done = bar * step // max(1, num_steps)
        line.append(" ").append("━" * num_done, style="bar.complete").append("━" * (bar - num_done), style="bar.back")
    if bar >= 0:
        line.append(f" {percent}")
    return line.append(GAP + end)


def fitting(fields: Sequence[str], width: int) -> str:
    """The first fields, as many as fit into `width` columns."""
    line = ""
    for field in fields:
        longer = f"{line}{GAP}{field}" if line else field
        if len(longer) > width:
            break
        line = longer
    return line


def _show(record: dict[str, Any], name: str, form: str) -> str:
    """A number of an update; a dash before the first one, "skipped" for a number that a skipped update lacks."""
    if name not in record:
        return "-"
    return "skipped" if record[name] is None else format(record[name], form)


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: max(0, limit - 1)]}…"


def _first_lines(sample: str, console: Console, width: int) -> Iterator[Text]:
    """The first `SAMPLE_LINES` lines of a sample, broken at words."""
    lines = Text(escape_controls(sample)).wrap(console, width)
    yield from lines[:SAMPLE_LINES]
    if len(lines) > SAMPLE_LINES:
        yield Text("…")


@contextmanager
def _ignoring_lost_output() -> Iterator[None]:
    """Ignores failed output, so that the run continues after its terminal or pipe is closed."""
    with suppress(OSError):
        yield
