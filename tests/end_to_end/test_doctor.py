"""`tinyllm doctor` finds damage, changes nothing, and its advice works."""

import re
import shutil
from pathlib import Path

import pytest

from dead_writers import leave_draft
from program_calls import call_program
from tinyllm import storage
from tinyllm.cli.app import main
from tinyllm.tokenizer.training import train_tokenizer
from training_runs import make_config, train

Capture = pytest.CaptureFixture[str]


def call(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    return call_program(capsys, main, *arguments)


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every path with the times and the content that reveal a change."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture(scope="module")
def finished(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    config = "".join(f"[{name}]\n{text}\n" for name, text in {"schedule": "num_steps = 6"}.items())
    trainer_config = make_config(tiny_shards, 6)
    train(tiny_shards, run, trainer_config)
    (run / "config.toml").write_text(config)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_is_whole_and_untouched(capsys: Capture, run: Path) -> None:
    before = snapshot(run)
    code, out, err = call(capsys, "doctor", str(run))
    assert (code, err) == (0, "")
    assert f"{run}: finished at step 6" in out
    assert "checkpoint of step 6; every checksum is right" in out
    assert "parameters, all finite" in out
    assert "!" not in out
    assert snapshot(run) == before


def test_every_kind_of_damage_is_marked_with_a_remedy(capsys: Capture, run: Path) -> None:
    newest = run / "checkpoints" / "step-00000006"
    (newest / "optimizer.safetensors").write_bytes(b"")
    (run / "model" / "config.json").unlink()
    draft = leave_draft(run / "checkpoints" / "step-00000009")
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')
    before = snapshot(run)
    code, out, err = call(capsys, "doctor", str(run))
    assert code == 1
    assert "4 finding(s) marked with !" in err
    assert f"! {newest}: {newest}/optimizer.safetensors is damaged: it has 0 bytes" in out
    assert "resume sets it aside and goes on from an earlier checkpoint" in out
    assert f"! {run}/model: {run}/model/config.json is missing" in out
    assert f"! {run}/checkpoints/step-00000009: not finished: an interrupted command left {draft}" in out
    assert "1 line(s) cannot be read" in out
    assert f"  {run}: stopped at step 3 of 6\n    -> go on with: tinyllm train --data SHARDS" in out
    assert snapshot(run) == before


def test_the_suggested_command_resumes(capsys: Capture, tiny_shards: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", tmp_path / "tiny.toml"
    config.write_text(
        "[model]\nhidden_size = 16\nnum_layers = 1\nnum_heads = 2\nnum_kv_heads = 1\ncontext_length = 16\n"
        "[training]\nbatch_size = 2\naccumulation_steps = 1\nsequence_length = 16\neval_interval = 3\n"
        'eval_batches = 1\ndevice = "cpu"\ndtype = "float32"\n[schedule]\nnum_steps = 6\n[sample]\nnum_samples = 0\n'
    )
    flags = ("--data", str(tiny_shards), "--config", str(config), "--out", str(run))
    # A tiny time limit: the run saves after its first step.
    assert call(capsys, "train", *flags, "--max-minutes", "0.000001")[0] == 0
    code, out, _ = call(capsys, "doctor", str(run))
    assert code == 0
    advice = re.search(r"go on with: tinyllm (.*)", out)
    assert advice is not None
    words = advice[1].replace("SHARDS", str(tiny_shards)).split()
    assert call(capsys, *words, "--max-minutes", "0")[0] == 0
    code, out, _ = call(capsys, "doctor", str(run))
    assert (code, "finished at step 6" in out) == (0, True)


def test_a_run_in_progress_is_reported(capsys: Capture, run: Path) -> None:
    with storage.exclusive(run):
        _, out, _ = call(capsys, "doctor", str(run))
    assert f"{run}: a run is in progress here" in out


def test_a_run_without_a_checkpoint_must_start_again(capsys: Capture, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    code, out, _ = call(capsys, "doctor", str(run))
    assert code == 1
    assert "no checkpoint to go on from" in out


def test_shards_give_a_forecast_of_a_run(capsys: Capture, tiny_shards: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(
        "[model]\nhidden_size = 16\nnum_layers = 1\nnum_heads = 2\nnum_kv_heads = 1\ncontext_length = 16\n"
        '[training]\nsequence_length = 16\ndevice = "cpu"\ndtype = "float32"\n[schedule]\nnum_steps = 50\n'
    )
    before = snapshot(tiny_shards)
    code, out, err = call(capsys, "doctor", str(tiny_shards), "--config", str(config), "--trial-seconds", "0.1")
    assert code == 0, err
    assert "every id in the vocabulary; every checksum is right" in out
    assert re.search(r"memory: about [\d.]+ MB of [\d.]+ GB available", out)
    assert re.search(r"disk: [\d.]+ kB of [\d.]+ GB free, for 2 checkpoints", out)
    assert re.search(r"time: \S+ s an update, [\d.]+ (minutes|hours) for 50", out)
    assert re.search(r"tokens to see, [\d.]+ times the training set", out)
    assert snapshot(tiny_shards) == before


def test_shards_too_small_for_the_recipe(capsys: Capture, tiny_shards: Path, tmp_path: Path) -> None:
    config = tmp_path / "long.toml"
    config.write_text("[model]\ncontext_length = 100000\n[training]\nsequence_length = 100000\n")
    code, _, err = call(capsys, "doctor", str(tiny_shards), "--config", str(config), "--trial-seconds", "0")
    assert code == 1
    assert "a window of this recipe needs 100001" in err


def test_damaged_shards_models_and_tokenizers(capsys: Capture, tiny_shards: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_shards, tmp_path / "shards")
    train_tokenizer(["A story of a red fox and an owl."], 280, tmp_path / "tokenizer")
    for directory, name, remedy in (
        (tmp_path / "shards", "train-00000.idx", "tinyllm prepare FILES"),
        (tmp_path / "tokenizer", "tokenizer.json", "tinyllm tokenizer train FILES"),
        (run / "model", "model.safetensors", "copy it again"),
    ):
        assert call(capsys, "doctor", str(directory), "--trial-seconds", "0")[0] in (0, 1)
        content = bytearray((directory / name).read_bytes())
        content[len(content) // 2] ^= 1
        (directory / name).write_bytes(content)
        code, out, _ = call(capsys, "doctor", str(directory), "--trial-seconds", "0")
        assert code == 1
        assert f"{directory / name} is damaged" in out
        assert remedy in out


def test_a_damaged_classifier_is_trained_again(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "labels"
    with storage.commit_directory(path, "classifier") as draft:
        (draft.path / "model.safetensors").write_bytes(b"weights")
    (path / "model.safetensors").write_bytes(b"Weights")
    code, out, _ = call(capsys, "doctor", str(path), "--trial-seconds", "0")
    assert code == 1
    assert "tinyllm classify train MODEL" in out


def test_shards_that_were_not_finished(capsys: Capture, tmp_path: Path) -> None:
    draft = leave_draft(tmp_path / "shards", "shards", {"train-00000.idx": b""})
    code, out, _ = call(capsys, "doctor", str(tmp_path / "shards"))
    assert code == 1
    assert f"! {tmp_path}/shards: not finished: an interrupted command left {draft}" in out
    assert "run the same command again; its 1 finished shard(s) are kept" in out


def test_without_a_directory_it_describes_the_machine(capsys: Capture) -> None:
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    assert "CPU threads" in out
    assert "free at" in out


@pytest.mark.parametrize(("name", "story"), [("nothing", "does not exist"), ("file", "is a file, not a directory")])
def test_a_path_that_is_not_a_directory(capsys: Capture, tmp_path: Path, name: str, story: str) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = call(capsys, "doctor", str(tmp_path / name))
    assert (code, story in err) == (1, True)


def test_subfolders_are_searched(capsys: Capture, run: Path, tiny_shards: Path, tmp_path: Path) -> None:
    """`tinyllm doctor demo`: the folder has no manifest, but its subfolders do."""
    shutil.copytree(tiny_shards, tmp_path / "shards")
    train_tokenizer(["A story of a red fox and an owl."], 280, tmp_path / "deep" / "tokenizer")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "manifest.txt").write_text("not ours")
    code, out, err = call(capsys, "doctor", str(tmp_path))
    assert (code, err, "!" in out) == (0, "", False)
    for name, story in (("shards", "shards, "), ("deep/tokenizer", "tokenizer, "), ("run", "finished at step 6")):
        assert f"  {tmp_path / name}: {story}" in out
    (tmp_path / "deep" / "tokenizer" / "manifest.json").unlink()
    code, out, err = call(capsys, "doctor", str(tmp_path))
    assert code == 1
    assert "1 finding(s) marked with !; the line with -> below each says what to do" in err
    lines = out.splitlines()
    (marked,) = (number for number, line in enumerate(lines) if line.startswith("!"))
    assert lines[marked + 1].startswith("    -> make it again: tinyllm tokenizer train")


def test_a_folder_without_outputs_gives_one_line(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    code, out, err = call(capsys, "doctor", str(tmp_path))
    assert (code, out) == (1, "")
    assert err == f"tinyllm: {tmp_path} and its subfolders hold no run, shards, model or tokenizer that tinyllm wrote\n"


def test_a_run_whose_only_checkpoint_is_damaged_is_begun_elsewhere(
    capsys: Capture, run: Path, tiny_shards: Path
) -> None:
    for checkpoint in (run / "checkpoints").glob("step-*"):
        (checkpoint / "model.safetensors").write_bytes(b"")
    code, out, _ = call(capsys, "doctor", str(run))
    assert code == 1
    assert "no other one is whole" in out
    assert "goes on from an earlier checkpoint" not in out
    assert f"--config {run / 'config.toml'} --out NEW-DIRECTORY" in out


@pytest.mark.parametrize("content", ["garbage", "[model]\nhidden_size = -1\n"])
def test_settings_of_a_run_that_cannot_be_read_are_marked(
    capsys: Capture, run: Path, content: str, tiny_shards: Path
) -> None:
    (run / "config.toml").write_text(content)
    code, out, _ = call(capsys, "doctor", str(run))
    assert code == 1
    assert f"! {run / 'config.toml'}: " in out
    code, _, err = call(capsys, "train", "--data", str(tiny_shards), "--out", str(run), "--resume", "auto")
    assert (code, "mend it, or name the run's --recipe" in err) == (2, True)


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
def test_a_trial_of_no_length_is_refused(capsys: Capture, tiny_shards: Path, seconds: str) -> None:
    code, _, err = call(capsys, "doctor", str(tiny_shards), "--trial-seconds", seconds)
    assert (code, "--trial-seconds is " in err) == (2, True)


PLAN = ("doctor", "--plan", "--recipe", "stories110m")


def test_a_plan_for_eight_gpus_has_its_numbers_and_reasons(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = call(capsys, *PLAN, "--tokens", "3e9", "--gpus", "8", "--gpu", "h100", "--price", "2.5")
    assert (code, err) == (0, "")
    for part in (
        "109,529,856",
        "27.4 a parameter",
        "131,072 tokens each",
        "8 x H100 SXM: 40% of 989 TFLOP/s",
        "767 MB",
        "2 x 7 / 8 x 4 bytes a parameter",
        "for each of 4 microbatches",
        "2.5 for a device and hour",
    ):
        assert part in out


def test_a_plan_takes_the_vocabulary_of_shards_and_measures_this_machine(
    capsys: Capture, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    config = tmp_path / "tiny.toml"
    config.write_text(
        "[model]\nhidden_size = 16\nnum_layers = 1\nnum_heads = 2\nnum_kv_heads = 1\ncontext_length = 16\n"
        '[training]\nsequence_length = 16\ndevice = "cpu"\ndtype = "float32"\nattention = "fused"\n'
    )
    before = snapshot(tiny_shards)
    flags = ("--plan", "--config", str(config), "--trial-seconds", "0.1", "--gpus", "2")
    code, out, _ = call(capsys, "doctor", str(tiny_shards), *flags)
    assert code == 0
    assert re.search(r"1 layers, 16 wide, \d+ tokens in the vocabulary", out)
    assert re.search(r"2 x this machine \(cpu\): \S+ GFLOP/s in a trial", out)
    assert "exchanges are left out, for the network is unknown" in out
    assert snapshot(tiny_shards) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--gpus", "8"), "--gpus belongs to a plan; add --plan"),
        (("--plan", "--gpu", "abacus"), "--gpu is 'abacus'; known are a100"),
        (("--plan", "--gpu", "h100", "--tokens", "-1"), "--tokens is -1.0; give a number above 0"),
        (("--plan", "--gpu", "h100", "--tokens", "1e300"), "--tokens is 1e+300; give a number above 0 up to 1e+18"),
        (("--plan", "--gpu", "h100", "--mfu", "40"), "--mfu is 40.0; give a number above 0 up to 1"),
        (("--plan", "--gpu", "h100", "--price", "nan"), "--price is nan"),
        (("--plan", "--gpu", "h100", "--gpus", "1000"), "--gpus is 1000; an update has 32 windows"),
        (("--plan", "--trial-seconds", "0"), "a plan for this machine measures it"),
    ],
)
def test_impossible_plans_are_refused_by_their_flag(capsys: Capture, flags: tuple[str, ...], message: str) -> None:
    code, out, err = call(capsys, "doctor", *flags)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_plan_that_does_not_fit_says_so(capsys: Capture, tmp_path: Path) -> None:
    config = tmp_path / "large.toml"
    config.write_text("[model]\nhidden_size = 8192\nnum_layers = 80\nnum_heads = 64\n")
    code, _, err = call(capsys, "doctor", "--plan", "--config", str(config), "--gpu", "l4")
    assert code == 0
    assert "the memory of a device is too small: use several" in err
