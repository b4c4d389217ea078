"""The log of stops: one line a stop, none for a run that never stopped, none after the step of a resumed run."""

from pathlib import Path

from tinyllm import storage
from tinyllm.training.stop_log import NAME, add_stop, drop_stops_after, read_stops


def test_a_run_without_a_stop_has_no_file(tmp_path: Path) -> None:
    drop_stops_after(tmp_path, 0)
    assert read_stops(tmp_path) == []
    assert not (tmp_path / NAME).exists()


def test_each_stop_and_each_resume_is_one_line(tmp_path: Path) -> None:
    for step, reason in ((3, "time"), (3, "resumed"), (3, "resumed"), (7, "signal 15")):
        add_stop(tmp_path, step, reason, {"validation_loss": 1.5} if step == 7 else None)
    assert read_stops(tmp_path) == [3, 7]
    assert storage.read_json_lines(tmp_path / NAME) == [
        {"step": 3, "reason": "time"},
        {"step": 3, "reason": "resumed"},
        {"step": 7, "reason": "signal 15", "validation_loss": 1.5},
    ]


def test_stops_after_the_step_that_a_run_continues_from_are_dropped(tmp_path: Path) -> None:
    for step in (3, 7, 9):
        add_stop(tmp_path, step, "time")
    drop_stops_after(tmp_path, 7)
    assert read_stops(tmp_path) == [3, 7]
    drop_stops_after(tmp_path, 0)
    assert read_stops(tmp_path) == []


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"step": 3, "reason": "time"}\n{"step": "x"}\n{"step": 4')
    assert read_stops(tmp_path) == [3]
