"""The display of a run in terminals of several widths, and its lines where output is no terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from tinyllm.cli.training_display import TrainingDisplay, fitting, progress_line
from tinyllm.config import Config
from tinyllm.config.layers import config_for_shards
from tinyllm.training.pace import Pace, show_size, show_time

UPDATE = {
    "step": 1240,
    "epoch": 3.2412,
    "loss": 2.34109,
    "learning_rate": 1e-3,
    "grad_norm": 0.712,
    "tokens_per_second": 1_024_310.0,
}
SAMPLE = " there was a little fox who lived in a wood.\nOne day \x1b[31mthe fox [bold]saw a red ball."


def make(**training: float) -> Config:
    sections: dict[str, dict[str, Any]] = {
        "schedule": {"num_steps": 5000},
        "training": {"log_interval": 10, **training},
    }
    return config_for_shards(2048, [("test", sections)], recipe="storybook")


class Watch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def terminal(file: io.StringIO, width: int = 80, kind: str = "xterm") -> Console:
    return Console(file=file, force_terminal=True, width=width, height=24, color_system=None, _environ={"TERM": kind})


def display_in(width: int, memory: int | None = 912_000_000, **training: float) -> tuple[TrainingDisplay, Watch]:
    """A display on a terminal of `width` columns, before its first update."""
    watch = Watch()
    console = terminal(io.StringIO(), width)
    display = TrainingDisplay(make(**training), console=console, clock=watch)
    display.numbers.memory = lambda: memory
    return display, watch


def run_to(display: TrainingDisplay, watch: Watch, record: dict[str, Any] = UPDATE) -> None:
    """Sends the events of a run that is at a quarter: one update in 0.1 s."""
    display.started(0, None)
    display.step({**UPDATE, "step": 1})
    watch.seconds += 100
    display.evaluation({"step": 1000, "validation_loss": 2.41018, "bits_per_byte": 1.0})
    display.samples(1000, "Once upon a time,", [SAMPLE, "another"])
    watch.seconds += 23.9
    display.step(record)


def screen(display: TrainingDisplay) -> list[str]:
    """The lines of the display."""
    with display.console.capture() as capture:
        display.console.print(display.numbers, end="")
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_of_usual_width_shows_every_number(width: int) -> None:
    display, watch = display_in(width)
    run_to(display, watch)
    progress, losses, speeds, heading, *sample = screen(display)
    assert len(progress) == width
    assert progress.startswith("step 1,240 of 5,000 ━━")
    assert progress.endswith("  24 %   6:16 left")
    assert losses == "loss 2.3411   best validation loss 2.4102   epoch 3.24"
    assert speeds == "gradient norm 0.71   1,024,310 tokens/s   memory 912 MB"
    assert heading == "sample at step 1,000:"
    assert "".join(sample).replace(" ", "").startswith("Onceuponatime,therewasalittlefox")
    assert r"One day \x1b[31mthe fox [bold]saw" in " ".join(sample)
    assert max(map(len, sample)) <= width


def test_the_time_left_is_the_last_number_to_go() -> None:
    seen = []
    for width in range(5, 81):
        display, watch = display_in(width)
        run_to(display, watch)
        lines = screen(display)
        assert max(map(len, lines)) <= width
        assert "6:16" in lines[0], f"width {width}"
        seen.append((lines[0], "\n".join(lines[1:3])))
    assert seen[0] == ("6:16", ""), "at 5 columns nothing else is left"
    assert ("6:16 left", "loss 2.3411") in [(first, rest.split("\n")[0]) for first, rest in seen]


def test_a_long_sample_is_cut() -> None:
    display, watch = display_in(80)
    run_to(display, watch)
    display.samples(2000, "", ["word " * 500])
    lines = screen(display)
    assert (len(lines), lines[3], lines[-1]) == (10, "sample at step 2,000:", "…")


def test_before_the_first_update_numbers_are_dashes() -> None:
    display, _ = display_in(80, memory=None)
    progress, losses, speeds = screen(display)
    assert progress.startswith("step 0 of 5,000 ")
    assert progress.endswith("   0 %   -:-- left")
    assert losses == "loss -   best validation loss -   epoch -"
    assert speeds == "gradient norm -   - tokens/s"


def test_a_resumed_run_begins_with_its_step_and_its_best_loss() -> None:
    display, watch = display_in(80)
    display.started(1000, 2.5)
    assert screen(display)[:2] == [screen(display)[0], "loss -   best validation loss 2.5000   epoch -"]
    assert screen(display)[0].startswith("step 1,000 of 5,000")
    display.evaluation({"step": 1500, "validation_loss": 2.6, "bits_per_byte": 1.0})
    assert "best validation loss 2.5000" in screen(display)[1]
    run_to(display, watch, {**UPDATE, "loss": None, "grad_norm": None})
    assert screen(display)[1:3] == [
        "loss skipped   best validation loss 2.4102   epoch 3.24",
        "gradient norm skipped   1,024,310 tokens/s   memory 912 MB",
    ]


def test_a_time_limit_ends_the_time_left() -> None:
    display, watch = display_in(80, max_minutes=3.0)
    assert screen(display)[0].endswith("3:00 left")
    run_to(display, watch)
    assert screen(display)[0].endswith("0:56 left")
    watch.seconds += 1000
    assert screen(display)[0].endswith("0:00 left")


def test_the_time_left_counts_down_between_updates() -> None:
    watch = Watch()
    pace = Pace(11, 0, watch)
    for step in (1, 2, 3):
        pace.reached(step)
        watch.seconds += 2
    assert pace.seconds_left() == 14
    watch.seconds += 1
    assert pace.seconds_left() == 13


def test_lines_have_all_numbers_at_each_log_interval(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch()
    display = TrainingDisplay(make(), console=Console(file=io.StringIO(), width=80), clock=watch)
    display.numbers.memory = lambda: 912_000_000
    with display:
        for step in range(1, 31):
            watch.seconds += 0.1
            display.step({**UPDATE, "step": step})
        display.evaluation({"step": 30, "validation_loss": 2.4, "bits_per_byte": 1.25})
        display.samples(30, "Once", [SAMPLE * 20])
    *steps, evaluation, sample = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in steps] == ["step 1/5000", "step 10/5000", "step 20/5000", "step 30/5000"]
    assert steps[-1] == (
        "step 30/5000  loss 2.3411  best validation loss -  epoch 3.24  learning rate 1.00e-03  "
        "gradient norm 0.71  1,024,310 tokens/s  memory 912 MB  8:17 left"
    )
    assert evaluation == "step 30: validation loss 2.4000, 1.2500 bits per byte"
    assert sample.startswith("sample at step 30: Once there was a little fox who lived in a wood. One day ")
    assert (len(sample), sample[-1]) == (len("sample at step 30: ") + 300, "…")


def test_a_run_without_samples_shows_none() -> None:
    display, _ = display_in(80)
    display.samples(5, "Once", [])
    assert not any("sample" in line for line in screen(display))


def test_the_live_display_stays_on_the_screen_with_lines_above_it() -> None:
    file = io.StringIO()
    with TrainingDisplay(make(), console=terminal(file)) as display:
        display.note("going on from step 3 [here]")
        display.step(UPDATE)
    text = file.getvalue()
    assert text.index("going on from step 3 [here]") < text.rindex("loss 2.3411")


def test_a_terminal_that_cannot_overwrite_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """TERM=dumb, as in a shell of Emacs."""
    file = io.StringIO()
    with TrainingDisplay(make(), console=terminal(file, kind="dumb")) as display:
        display.step({**UPDATE, "step": 1})
        assert "step 1/" in capsys.readouterr().err
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-:--"), (0, "0:00"), (59.6, "1:00"), (192, "3:12"), (3725, "1:02:05"), (200_000, "2 days 7 h")],
)
def test_times_are_short(seconds: float | None, text: str) -> None:
    assert show_time(seconds) == text


def test_sizes_have_a_unit() -> None:
    assert [show_size(number) for number in (39_400_000, 999_600_000, 12_940_000_000)] == ["39 MB", "1.0 GB", "12.9 GB"]


def test_fields_are_kept_from_the_first() -> None:
    assert fitting(["one", "two", "three"], 9) == "one   two"
    assert fitting(["one", "two"], 2) == ""


@pytest.mark.parametrize(("step", "num_done"), [(0, 0), (50, 21), (100, 42)])
def test_the_bar_grows_with_the_steps(step: int, num_done: int) -> None:
    line = progress_line(step, 100, "0:10", 76)
    lengths = {span.style: span.end - span.start for span in line.spans}
    assert (len(line), lengths.get("bar.complete", 0)) == (76, num_done)
