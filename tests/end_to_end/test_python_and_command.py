"""`tinyllm.train` and `tinyllm train` write the same files and refuse the same outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinyllm
from tinyllm import storage
from tinyllm.cli.flags import in_flags
from tinyllm.errors import TinyllmError, UsageError
from training_runs import MODEL, TRAINING

Call = Callable[..., tuple[int, str, str]]


def flags_of(sections: dict[str, Any]) -> list[str]:
    """The flags of `tinyllm train` for the sections that `tinyllm.train` takes."""
    return [word for name, keys in sections.items() for key, value in keys.items() for word in _flag(name, key, value)]


def _flag(section: str, key: str, value: object) -> tuple[str, str]:
    return f"--{section}.{key}", str(value)


def test_python_and_the_command_write_the_same_run(tiny_shards: Path, tmp_path: Path, call_tinyllm: Call) -> None:
    sections: dict[str, Any] = {
        "model": MODEL,
        "training": TRAINING,
        "schedule": {"num_steps": 4, "warmup_steps": 1},
        "sample": {"prompt": "Once", "num_samples": 2, "max_new_tokens": 5},
    }
    python, command = tmp_path / "python", tmp_path / "command"
    tinyllm.train(tiny_shards, python, **sections)
    code, _, err = call_tinyllm("train", "--data", tiny_shards, "--out", command, *flags_of(sections))
    assert code == 0, err
    samples = (python / "samples.jsonl").read_text(encoding="utf-8")
    assert samples.count("\n") == 2
    for name in ("samples.jsonl", "config.toml"):
        assert (command / name).read_text(encoding="utf-8") == (python / name).read_text(encoding="utf-8")


def foreign_folder(place: Path) -> None:
    (place / "checkpoints").mkdir(parents=True)
    (place / "checkpoints" / "mine.txt").touch()


def finished_shards(place: Path) -> None:
    storage.write_file(place / "manifest.json", "{}")


def file_above(place: Path) -> None:
    place.parent.touch()


@pytest.mark.parametrize("prepare", [foreign_folder, finished_shards, file_above])
def test_python_and_the_command_refuse_the_same_outputs(
    prepare: Callable[[Path], None],
    tiny_shards: Path,
    tmp_path: Path,
    call_tinyllm: Call,
) -> None:
    out = tmp_path / "runs" / "one"
    prepare(out)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TinyllmError) as raised:
        tinyllm.train(tiny_shards, out, model=MODEL, training=TRAINING)
    code, _, err = call_tinyllm(
        "train", "--data", tiny_shards, "--out", out, *flags_of({"model": MODEL, "training": TRAINING})
    )
    assert (code, err) == (raised.value.exit_code, f"tinyllm: {in_flags(raised.value)}\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_not_begun_in_the_place_of_another(tiny_shards: Path, tmp_path: Path, call_tinyllm: Call) -> None:
    sections: dict[str, Any] = {"model": MODEL, "training": TRAINING, "schedule": {"num_steps": 1}}
    tinyllm.train(tiny_shards, tmp_path / "run", **sections)
    with pytest.raises(UsageError, match="already holds a run; go on with `resume=True`, or choose another `out`"):
        tinyllm.train(tiny_shards, tmp_path / "run", **sections)
    err = call_tinyllm("train", "--data", tiny_shards, "--out", tmp_path / "run", *flags_of(sections))[2]
    assert err.endswith("already holds a run; go on with --resume auto, or choose another --out directory\n")
