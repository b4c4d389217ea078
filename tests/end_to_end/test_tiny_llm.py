"""The tutorial's four commands in order, on the tutorial's layout, and each before its time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tinyllm
from tinyllm.cli.tiny_llm import TRAIN_CONSTANTS, translate_constants

ROOT = Path(__file__).parent.parent.parent
TINY = ["--max_iters=4", "--eval_interval=2", "--dim=16", "--n_layers=1", "--n_heads=2", "--n_kv_heads=1"]
TINY += ["--max_seq_len=32", "--batch_size=2", "--gradient_accumulation_steps=1", "--eval_iters=1", "--device=cpu"]
TINY += ["--dtype=float32"]


def run(folder: Path, script: str, *arguments: str) -> tuple[int, str, str]:
    package = str(Path(tinyllm.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus in the tutorial's place."""
    folder = tmp_path_factory.mktemp("tutorial")
    corpus = folder / "data" / "TinyStories_all_data"
    corpus.mkdir(parents=True)
    for number in range(2):
        stories = [{"story": f" Lily had {i} red balls and {number} big blue hats. She was happy. "} for i in range(60)]
        (corpus / f"data{number:02d}.json").write_text(json.dumps(stories))
    return folder


def test_each_step_before_its_predecessor_says_which_is_missing(tmp_path: Path) -> None:
    for script, arguments, missing in (
        ("sample.py", [], "run python train.py first"),
        ("train.py", [], "run python preprocess.py first"),
        ("preprocess.py", [], "run python train_vocab.py first"),
        ("train_vocab.py", ["--download", "False"], "run python train_vocab.py --download True"),
    ):
        code, out, err = run(tmp_path, script, *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert missing in err


def test_the_four_commands_in_order(workshop: Path) -> None:
    code, out, err = run(workshop, "train_vocab.py", "--download", "True", "--vocab_size", "300")
    assert code == 0, err
    assert "Trained tokenizer is in data/tok300.model" in out

    code, out, err = run(workshop, "preprocess.py")
    assert code == 0, err
    assert (workshop / "data/tok300/train-00000.bin").stat().st_size > 1000

    code, out, err = run(workshop, "train.py", "--vocab_size=300", *TINY)
    assert code == 0, err
    checkpoint = torch.load(workshop / "output/ckpt.pt", weights_only=True)
    assert set(checkpoint) == {"model", "model_args", "iter_num", "best_val_loss", "config"}
    assert checkpoint["iter_num"] == 4
    assert checkpoint["model_args"]["dim"] == 16
    assert checkpoint["config"]["learning_rate"] == 5e-4
    assert "layers.0.attention.wq.weight" in checkpoint["model"]

    code, out, err = run(workshop, "sample.py", "--prompt", "One day, Lily met a Shoggoth", "--max_new_tokens", "5")
    assert code == 0, err
    assert out.count("One day, Lily met a Shoggoth") == 3
    assert run(workshop, "sample.py", "--max_new_tokens", "5")[1] == out  # the default prompt and seed


def test_wrong_flags_are_usage_errors(workshop: Path) -> None:
    assert run(workshop, "train_vocab.py", "--download", "perhaps")[0] == 2
    assert run(workshop, "train.py", "--dimension=3")[0] == 2
    code, _, err = run(workshop, "train.py", "--vocab_size=300", "--n_heads=7", *TINY[:2])
    assert (code, err.count("\n")) == (2, 1)
    assert "hidden_size 288 is not divisible by num_heads 7" in err


def test_every_constant_reaches_the_config() -> None:
    config = translate_constants(TRAIN_CONSTANTS | {"decay_lr": False, "learning_rate": 1e-3})
    assert (config.schedule.peak, config.schedule.floor, config.schedule.warmup_steps) == (1e-3, 1e-3, 0)
    changed = {
        name: (not value if isinstance(value, bool) else value * 2 if isinstance(value, int) else value)
        for name, value in TRAIN_CONSTANTS.items()
    }
    default, other = (translate_constants(c).model_dump() for c in (TRAIN_CONSTANTS, changed))
    same = {f"{s}.{k}" for s in default for k in default[s] if default[s][k] == other[s][k]}
    for field in ("training.batch_size", "model.hidden_size", "schedule.num_steps", "training.eval_only"):
        assert field not in same
