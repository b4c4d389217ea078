"""A small `tinyllm demo`: every stage runs and the table shows its results."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm.cli.demo import clear, demo_config, with_small_updates
from tinyllm.errors import UsageError

Call = Callable[..., tuple[int, str, str]]
ARGUMENTS = ("demo", "--stories", "400", "--steps", "2", "--out", "show")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of a finished small demo, which no test may change, and what it wrote on stdout and stderr."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "tinyllm", *ARGUMENTS]
    process = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    assert process.returncode == 0, process.stderr
    return folder / "show", process.stdout, process.stderr


@pytest.fixture
def show(printed: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished demo in the current folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(printed[0], Path("show"))


def test_a_small_demo_runs_to_its_table(printed: tuple[Path, str, str]) -> None:
    folder, out, err = printed
    for number in range(1, 6):
        assert f"[{number}/5]" in err
    for row in ("stories", "training tokens", "parameters", "validation loss", "peak memory", "loss curve", "time"):
        assert re.search(rf"│ {row} +│", out)
    assert re.search(r"20: the grammar accepts \d+, \d+ of them new", out)
    assert out.count("  tinyllm ") == 4
    assert (folder / "run/loss.svg").read_text().startswith("<svg")


def test_small_updates_see_the_same_tokens() -> None:
    planned = demo_config(2048, None)
    small = with_small_updates(planned)
    assert small.tokens_per_step * 2 == planned.tokens_per_step
    assert small.schedule.num_steps == planned.schedule.num_steps * 2


def test_a_folder_that_no_demo_wrote_is_refused(call_tinyllm: Call) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    code, _, err = call_tinyllm("demo", "--out", "mine")
    assert (code, err.count("\n")) == (2, 1)
    assert "mine is not empty and no demo wrote it" in err
    assert Path("mine/thesis.txt").exists()


def test_clearing_a_demo_keeps_files_of_the_user(show: Path) -> None:
    for name in ("notes.txt", "run/notes.txt", "run/model/notes.txt"):
        (show / name).write_text("mine")
    (show / "run/checkpoints/keep").mkdir()
    with pytest.raises(UsageError, match="show/run/model holds files that tinyllm did not write"):
        clear(show)
    (show / "run/model/notes.txt").unlink()
    clear(show)
    left = sorted(str(path.relative_to(show)) for path in show.rglob("*") if path.name[0] != ".")
    assert left == ["notes.txt", "run", "run/checkpoints", "run/checkpoints/keep", "run/notes.txt"]


def test_stories_that_the_user_changed_are_kept(call_tinyllm: Call, show: Path) -> None:
    (show / "stories.jsonl").write_text('{"text": "my own story"}\n')
    code, _, err = call_tinyllm(*ARGUMENTS)
    assert (code, err.count("\n")) == (2, 1)
    assert "show/stories.jsonl is not the file that a demo wrote" in err
    assert (show / "stories.jsonl").read_text() == '{"text": "my own story"}\n'
    assert (show / "run/model").exists()


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
