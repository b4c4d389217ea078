"""The display of a training run in a notebook: a bar, numbers, the loss curve and a sample, updated in place.

A notebook is a Python process with a kernel of IPython. Elsewhere nothing of this module is used, and IPython is never
imported first.
"""

import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from tinyllm import markup
from tinyllm.model.size import num_parameters
from tinyllm.planning.plan import Plan
from tinyllm.planning.reporter import FitReporter
from tinyllm.planning.survey import Survey
from tinyllm.progress import Progress
from tinyllm.training.loss_curve import CurveRecords, as_part_of_page, draw_loss_curve
from tinyllm.training.pace import Clock, Pace, show_time

REFRESH_SECONDS = 0.5
"""Time between two updates of the numbers; the curve is drawn at evaluations."""
SHOWN_NOTES = 6
SHOWN_SAMPLE = 400
"""Characters of a sample that are shown."""


def in_notebook() -> bool:
    """Whether this process is a kernel of IPython, which shows HTML; imports nothing."""
    module: Any = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookDisplay(FitReporter):
    """Shows the events of a run in the output of the cell that started it."""

    def __init__(self, max_minutes: float = 0, *, clock: Clock = time.monotonic) -> None:
        """`max_minutes` is the time limit of the run, 0 for none; the time left counts it."""
        self._clock, self._max_minutes = clock, max_minutes
        self._start = clock()
        self._pace: Pace | None = None
        self._progress: Progress | None = None
        self._records: dict[str, Any] = {}
        self._curve, self._drawn, self._sample = CurveRecords(), "", ""
        self._notes: deque[str] = deque(maxlen=SHOWN_NOTES)
        self._handle: Any = None
        self._next_refresh = 0.0

    def note(self, message: str) -> None:
        """Adds a line."""
        self._notes.append(message)
        self._show()

    def planned(self, plan: Plan, survey: Survey) -> None:  # noqa: ARG002
        """Shows the plan of `fit` as a line."""
        self.note(f"plan: {num_parameters(plan.model):,} parameters, {plan.num_steps:,} steps")

    def advance(self, progress: Progress) -> None:
        """Moves the bar, at most every `REFRESH_SECONDS` and at the end."""
        self._progress = progress
        if progress.label == "training":
            self._pace = self._pace or self._new_pace(progress.total or 0)
            self._pace.reached(progress.done)
        if self._clock() >= self._next_refresh or progress.done == progress.total:
            self._show()

    def step(self, record: dict[str, Any]) -> None:
        """Takes the numbers of an update."""
        self._records |= record
        self._curve.add(record)

    def evaluation(self, record: dict[str, Any]) -> None:
        """Draws the curve with the validation loss."""
        self._records |= record
        self._curve.add(record)
        self._drawn = as_part_of_page(draw_loss_curve(self._curve.records(), "this run"))
        self._show()

    def samples(self, step: int, prompt: str, texts: Sequence[str]) -> None:
        """Shows the first sample."""
        if texts:
            text = prompt + texts[0]
            shown = text if len(text) <= SHOWN_SAMPLE else f"{text[:SHOWN_SAMPLE]}…"
            self._sample = f"<div>{markup.text(f'sample at step {step:,}: ', dim=True)}{markup.text(shown)}</div>"
            self._show()

    def _new_pace(self, num_steps: int) -> Pace:
        minutes_used = (self._clock() - self._start) / 60
        limit = max(self._max_minutes - minutes_used, 1e-9) if self._max_minutes else 0
        return Pace(num_steps, limit, self._clock)

    def _show(self) -> None:
        """Replaces the output of this run."""
        from IPython.display import HTML, display

        self._next_refresh = self._clock() + REFRESH_SECONDS
        page = HTML(self._page())
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)

    def _page(self) -> str:
        notes = "".join(markup.line(note) for note in self._notes)
        return markup.frame(self._bar(), self._drawn, self._sample, notes)

    def _bar(self) -> str:
        progress = self._progress
        if progress is None:
            return ""
        total = f" of {progress.total:,}" if progress.total else ""
        facts = [f"{progress.label}: {progress.done:,}{total} {progress.unit}", *self._numbers()]
        bar = markup.bar(progress.done / progress.total) if progress.total else ""
        return f"{bar}{markup.line(*facts)}"

    def _numbers(self) -> list[str]:
        """The newest numbers of the run; a skipped update has none."""
        forms = {
            "loss": "loss {:.4f}",
            "validation_loss": "validation loss {:.4f}",
            "tokens_per_second": "{:,.0f} tokens/s",
        }
        numbers = {name: self._records.get(name) for name in forms}
        found = [forms[name].format(number) for name, number in numbers.items() if number is not None]
        return found if self._pace is None else [*found, f"{show_time(self._pace.seconds_left())} left"]
