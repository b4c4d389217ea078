"""The benchmarks of a GPU: all of their code on a CPU, their end without a GPU, and their table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"
PROGRAMS = {
    "gpu_train": ["--rounds", "1", "--steps", "2"],
    "gpu_decode": [],
}


def run(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{program}.py"), *options],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("program", PROGRAMS)
def test_without_a_gpu_one_line_tells_so(program: str) -> None:
    result = run(program)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("this benchmark needs an NVIDIA GPU; --device cpu --quick")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")],
        ),
    ],
)
def test_a_quick_run_measures_every_side_and_gives_a_table(device: str, tmp_path: Path) -> None:
    files = []
    for program, options in PROGRAMS.items():
        files.append(str(tmp_path / f"{program}.json"))
        result = run(program, "--device", device, "--quick", *options, "--json", files[-1])
        assert result.returncode == 0, result.stderr
    training, decoding = (json.loads(Path(file).read_text())["rows"] for file in files)
    assert [row["what"].rpartition("against ")[2] for row in training] == [
        "llama2.c's settings",
        "nanoGPT-style eager",
        "transformers",
    ]
    peers = {row["what"].rpartition("against ")[2] for row in decoding}
    assert peers >= {"plain engine", "transformers"}
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in training + decoding)
    table = run("table", *files)
    assert len(table.stdout.splitlines()) == 1 + len(training) + len(decoding)
