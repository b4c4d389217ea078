"""`tinyllm train`: its output, its files, its errors and its stops."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import tinyllm
from tinyllm import storage
from tinyllm.training.saved_model import SavedModel

Call = Callable[..., tuple[int, str, str]]
SMALL = [
    *("--recipe", "storybook", "--steps", "6", "--device", "cpu", "--dtype", "float32"),
    *("--model.hidden_size", "16", "--model.num_layers", "1", "--model.num_heads", "2", "--model.num_kv_heads", "1"),
    *("--model.intermediate_size", "32", "--model.context_length", "32"),
    *("--training.sequence_length", "32", "--training.batch_size", "2", "--training.eval_interval", "3"),
    *("--sample.max_new_tokens", "5"),
]


def test_a_run_prints_its_loss_and_saves_a_model(call_tinyllm: Call, tiny_shards: Path) -> None:
    Path("more.toml").write_text("[training]\nkeep_checkpoints = 1\nlog_interval = 2\n")
    code, out, err = call_tinyllm("train", "--data", tiny_shards, "--out", "run", "--config", "more.toml", *SMALL)
    assert code == 0, err
    assert "step 6: validation loss" in out
    assert "bits per byte; model in run/model, curve in run/loss.svg" in out
    assert "step 2/6  loss " in err
    settings = tomllib.loads(Path("run/config.toml").read_text())
    assert settings["training"]["keep_checkpoints"] == 1
    assert settings["model"]["hidden_size"] == 16
    assert settings["schedule"]["num_steps"] == 6
    samples = [json.loads(line) for line in Path("run/samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [3, 6]

    code, out, err = call_tinyllm("generate", "run", "Once upon", "--max-new-tokens", "3", "--temperature", "0")
    assert (code, out[:9]) == (0, "Once upon"), err
    # The resolved settings of a run are a valid --config.
    code, _, err = call_tinyllm("train", "--data", tiny_shards, "--out", "again", "--config", "run/config.toml")
    assert code == 0, err


def test_an_automatic_width_follows_a_flag_and_the_model_loads(call_tinyllm: Call, tiny_shards: Path) -> None:
    """The recipe names no intermediate_size: 8 x 32 / 3 = 85, rounded up to a multiple of 4."""
    flags = ["--recipe", "stories260k", "--steps", "2", "--model.hidden_size", "32", "--model.context_length", "32"]
    flags += ["--model.num_kv_heads", "auto", "--training.sequence_length", "32", "--training.batch_size", "2"]
    code, _, err = call_tinyllm("train", "--data", tiny_shards, "--out", "run", "--device", "cpu", *flags)
    assert code == 0, err
    assert "schedule.warmup_steps 1000 would take all 2 steps of the run; " in err
    model = tomllib.loads(Path("run/config.toml").read_text())["model"]
    assert (model["intermediate_size"], model["num_kv_heads"]) == (88, 8)
    code, out, err = call_tinyllm("generate", "run", "Once", "--max-new-tokens", "2")
    assert (code, out[:4]) == (0, "Once"), err
    # The run's settings fit its model, although config.json has no multiple_of.
    call = ["train", "--data", tiny_shards, "--out", "next", "--config", "run/config.toml", "--init-from", "run/model"]
    code, _, err = call_tinyllm(*call)
    assert code == 0, err


def test_a_finished_run_is_not_overwritten_and_continues_with_resume(call_tinyllm: Call, tiny_shards: Path) -> None:
    call_tinyllm("train", "--data", tiny_shards, "--out", "run", *SMALL)
    code, _, err = call_tinyllm("train", "--data", tiny_shards, "--out", "run", *SMALL)
    assert code == 2
    assert "tinyllm: run already holds a run; go on with --resume auto, or choose another --out directory" in err
    code, _, err = call_tinyllm("train", "--data", tiny_shards, "--out", "run", *SMALL, "--resume", "auto")
    assert code == 0, err
    assert "nothing is left to train: schedule.num_steps is 6" in err
    longer = [*SMALL, "--schedule.num_steps", "8", "--resume", "auto"]
    longer[longer.index("--steps") + 1] = "8"
    code, _, err = call_tinyllm("train", "--data", tiny_shards, "--out", "run", *longer)
    assert code == 0, err
    assert "going on from run/checkpoints/step-00000006, step 6" in err


def test_a_stopped_run_resumes_without_its_flags(call_tinyllm: Call, tiny_shards: Path) -> None:
    code, out, err = call_tinyllm("train", "--data", tiny_shards, "--out", "run", *SMALL, "--max-minutes", "1e-9")
    assert code == 0, err
    assert "time limit reached at step 1; go on with --resume auto" in err
    assert out.startswith("step 1: validation loss ")
    assert "bits per byte; model in run/model, curve in run/loss.svg" in out
    assert call_tinyllm("info", "run")[0] == 0
    code, out, err = call_tinyllm("train", "--data", tiny_shards, "--out", "run", "--resume", "auto")
    assert code == 0, err
    assert out.startswith("step 6: validation loss ")
    code, again, err = call_tinyllm("train", "--data", tiny_shards, "--out", "run", "--init-from", "resume")
    assert (code, again) == (0, out), err


@pytest.mark.parametrize(
    ("flags", "exit_code", "message"),
    [
        (["--model.hiden_size", "3"], 2, "flags: unknown key model.hiden_size; did you mean model.hidden_size?"),
        (["--model.num_heads", "3"], 2, "hidden_size 128 is not divisible by num_heads 3"),
        (["--model.vocab_size", "99"], 1, "model.vocab_size is 99, but the shards' tokenizer has 320 tokens"),
        (["--training.sequence_length", "512"], 2, "sequence_length 512 is longer than model.context_length 256"),
        (["--device", "cuda:99"], 2, "--device cuda:99: this machine"),
        (["--device", "toaster"], 2, "--device toaster is not a device"),
        (["--recipe", "cake"], 2, "--recipe cake is not a recipe; choose one of seed, stories110m"),
        (["--init-from", "nowhere"], 1, "nowhere does not exist"),
        (["--config", "none.toml"], 2, "--config none.toml does not exist"),
        (["--training.sequence_length", "9999", "--model.context_length", "9999"], 1, "the corpus is too small: "),
        (["--training.batch_size", "100000000"], 1, "this run needs at least "),
        (["--model.hidden_size", "4000000"], 1, "this run needs at least "),
        (["--model.num_heads", "0"], 2, "model.num_heads is 0; it should be greater than 0"),
        (["--model.num_layers", "-1"], 2, "model.num_layers is -1; it should be greater than 0"),
        (["--model.intermediate_size", "wide"], 2, "model.intermediate_size is wide; it should be a valid integer"),
    ],
)
def test_errors_give_one_line(
    call_tinyllm: Call, tiny_shards: Path, flags: list[str], exit_code: int, message: str
) -> None:
    arguments = flags if "--recipe" in flags else ["--recipe", "storybook", *flags]
    code, out, err = call_tinyllm("train", "--data", tiny_shards, "--out", "run", *arguments)
    assert (code, out) == (exit_code, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not Path("run/model").exists()


def test_missing_and_modified_shards(call_tinyllm: Call, tiny_shards: Path, tmp_path: Path) -> None:
    code, _, err = call_tinyllm("train", "--data", "none", "--out", "run")
    assert (code, err.count("\n")) == (1, 1)
    assert "none does not exist; make shards with: tinyllm prepare" in err
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tiny_shards.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["details"]["tokenizer_fingerprint"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = call_tinyllm("train", "--data", copy, "--out", "run")
    assert code == 1
    assert "manifest.json is damaged: its text does not match its own checksum" in err


def test_an_unwritable_output_fails_before_the_work(call_tinyllm: Call, tiny_shards: Path) -> None:
    Path("file").write_text("")
    code, _, err = call_tinyllm("train", "--data", tiny_shards, "--out", "file/run", *SMALL)
    assert (code, err.count("\n")) == (1, 1)
    assert "file is a file, not a directory" in err


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_ends_with_its_code(number: int, exit_code: int, tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_training(tiny_shards, run, 1_000_000, stderr=subprocess.PIPE, text=True)
    wait_for(run / "model" / "manifest.json")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == exit_code, err
    step = int(err.split("stopped at step ")[1].split()[0])
    assert (run / "checkpoints" / f"step-{step:08d}" / "manifest.json").exists()
    model = SavedModel.read(run / "model")
    assert model is not None
    assert f"{run / 'model'} is of {model}; go on with --resume auto" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_closed_terminal_saves_the_run(tiny_shards: Path, tmp_path: Path) -> None:
    """The kernel sends SIGHUP to the processes of a closed terminal, and every write to it fails."""
    run = tmp_path / "run"
    ours, theirs = pty.openpty()
    process = start_training(
        *(tiny_shards, run, 1_000_000),
        program=("-c", KEEPS_ITS_ERROR, str(tmp_path / "error.txt")),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    wait_for(run / "model" / "manifest.json", terminal=ours)
    os.close(ours)
    assert process.wait(timeout=60) == 129, (tmp_path / "error.txt").read_text()
    checkpoints = sorted((run / "checkpoints").iterdir())
    storage.verify(checkpoints[-1], "checkpoint")
    storage.verify(run / "model", "model")


def test_a_closed_pipe_does_not_end_the_run(tiny_shards: Path, tmp_path: Path) -> None:
    """The same as `tinyllm train 2>&1 | head -1`, or a lost ssh connection without a terminal."""
    run = tmp_path / "run"
    process = start_training(tiny_shards, run, 6, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    assert process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=400) == 0
    storage.verify(run / "checkpoints" / "step-00000006", "checkpoint")


KEEPS_ITS_ERROR = """
import sys, traceback
from tinyllm.cli.app import main
try:
    main(sys.argv[2:])
except BaseException:
    with open(sys.argv[1], "w") as file:
        traceback.print_exc(file=file)
    raise
"""
"""`tinyllm` that writes how it ended to a file, for a test whose terminal is closed."""


def start_training(
    shards: Path, run: Path, num_steps: int, program: Sequence[str] = ("-m", "tinyllm"), **streams: Any
) -> subprocess.Popen[Any]:
    """Starts `tinyllm train` of the small model in a new process."""
    command = [sys.executable, *program, "train", "--data", str(shards), "--out", str(run), *SMALL]
    command[command.index("--steps") + 1] = str(num_steps)
    package = str(Path(tinyllm.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, **streams)


def wait_for(path: Path, terminal: int | None = None) -> None:
    """Waits until `path` exists; reads from `terminal` while waiting, so that its buffer does not fill up."""
    deadline = time.monotonic() + 400  # a busy machine compiles slowly
    while not path.exists():
        assert time.monotonic() < deadline
        if terminal is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(terminal, 2**16)
        time.sleep(0.05)


def test_the_prompt_of_samples_in_training_is_read_as_a_prompt(call_tinyllm: Call, tiny_shards: Path) -> None:
    command = ["train", "--data", tiny_shards, "--out", "run", "--training.device", "cpu", "--steps", "1"]
    command += ["--model.hidden_size", "16", "--model.num_layers", "1", "--model.num_heads", "2"]
    command += ["--training.sequence_length", "16", "--model.context_length", "32", "--training.batch_size", "2"]
    code, _, err = call_tinyllm(*command, "--sample.prompt", "the\udcff")
    assert (code, err.count("\n")) == (1, 1)
    assert "--sample.prompt is not UTF-8 at line 1, byte 3 (0xff" in err
