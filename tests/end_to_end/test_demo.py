"""A small `tinyllm demo`: every stage runs and the table shows its results."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm.cli.demo import clear
from tinyllm.errors import UsageError

Call = Callable[..., tuple[int, str, str]]


def test_a_small_demo_runs_to_its_table(call_tinyllm: Call) -> None:
    code, out, err = call_tinyllm("demo", "--stories", "400", "--steps", "2", "--out", "show")
    assert code == 0, err
    for number in range(1, 6):
        assert f"[{number}/5]" in err
    for row in ("stories", "training tokens", "parameters", "validation loss", "peak memory", "loss curve", "time"):
        assert re.search(rf"│ {row} +│", out)
    assert re.search(r"20: the grammar accepts \d+, \d+ of them new", out)
    assert out.count("  tinyllm ") == 4
    assert Path("show/run/loss.svg").read_text().startswith("<svg")


def test_a_folder_that_no_demo_wrote_is_refused(call_tinyllm: Call) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    code, _, err = call_tinyllm("demo", "--out", "mine")
    assert (code, err.count("\n")) == (2, 1)
    assert "mine is not empty and no demo wrote it" in err
    assert Path("mine/thesis.txt").exists()


def test_clearing_a_demo_keeps_files_of_the_user(call_tinyllm: Call) -> None:
    assert call_tinyllm("demo", "--stories", "400", "--steps", "1", "--out", "show")[0] == 0
    for name in ("notes.txt", "run/notes.txt", "run/model/notes.txt"):
        Path("show", name).write_text("mine")
    Path("show/run/checkpoints/keep").mkdir()
    with pytest.raises(UsageError, match="show/run/model holds files that tinyllm did not write"):
        clear(Path("show"))
    Path("show/run/model/notes.txt").unlink()
    clear(Path("show"))
    left = sorted(str(path.relative_to("show")) for path in Path("show").rglob("*") if path.name[0] != ".")
    assert left == ["notes.txt", "run", "run/checkpoints", "run/checkpoints/keep", "run/notes.txt"]


def test_stories_that_the_user_changed_are_kept(call_tinyllm: Call) -> None:
    assert call_tinyllm("demo", "--stories", "400", "--steps", "1", "--out", "show")[0] == 0
    Path("show/stories.jsonl").write_text('{"text": "my own story"}\n')
    code, _, err = call_tinyllm("demo", "--stories", "400", "--steps", "1", "--out", "show")
    assert (code, err.count("\n")) == (2, 1)
    assert "show/stories.jsonl is not the file that a demo wrote" in err
    assert Path("show/stories.jsonl").read_text() == '{"text": "my own story"}\n'
    assert Path("show/run/model").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "schedule.num_steps is 0; it should be greater than 0"),
        (["--max-minutes", "nan"], "--max-minutes is nan; it should be greater than 0 and finite"),
        (["--max-minutes", "inf"], "--max-minutes is inf; it should be greater than 0 and finite"),
        (["--max-minutes", "0"], "--max-minutes is 0.0; it should be greater than 0 and finite"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_written(
    call_tinyllm: Call, flags: list[str], message: str
) -> None:
    code, out, err = call_tinyllm("demo", "--out", "show", *flags)
    assert (code, out, err) == (2, "", f"tinyllm: {message}\n")
    assert not Path("show").exists()
