"""`tinyllm info`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from program_calls import call_program
from tinyllm.cli.app import main
from tinyllm.model import size
from tinyllm.model_dir import read_config


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    return call_program(capsys, main, "info", *arguments)


def test_info_shows_sizes_costs_and_shapes(
    capsys: pytest.CaptureFixture[str], make_model_dir: Callable[..., Path]
) -> None:
    path = make_model_dir()
    config = read_config(path)
    code, out, _ = run(capsys, path)
    assert code == 0
    assert f"{size.num_parameters(config):,}" in out
    assert f"{4 * size.num_parameters(config):,} (float32)" in out
    assert f"{size.forward_flops_per_token(config):,} forward" in out
    assert "model.layers.N.self_attn.k_proj.weight" in out
    assert "16 x 32" in out
    assert "in 2 layers" in out
    assert "every file matches its checksum" in out


def test_json_has_every_tensor(capsys: pytest.CaptureFixture[str], make_model_dir: Callable[..., Path]) -> None:
    path = make_model_dir(tie_embeddings=False)
    result = json.loads(run(capsys, path, "--json")[1])
    config = read_config(path)
    assert {name: tuple(t["shape"]) for name, t in result["tensors"].items()} == size.parameter_shapes(config)
    assert result["num_parameters"] == size.num_parameters(config)
    assert result["weight_bytes"] == size.weight_bytes(config)
    assert result["manifest"]["tokenizer_fingerprint"] == result["tokenizer"]["fingerprint"]
    assert result["config"]["num_kv_heads"] == 2


def test_a_foreign_directory_is_reported_as_unchecked(
    capsys: pytest.CaptureFixture[str], make_model_dir: Callable[..., Path]
) -> None:
    path = make_model_dir()
    (path / "manifest.json").unlink()
    assert "not written by tinyllm" in run(capsys, path)[1]


def test_a_missing_model_gives_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "nowhere does not exist" in err


def test_info_loads_no_torch(make_model_dir: Callable[..., Path]) -> None:
    program = (
        "import sys; from tinyllm.cli.app import main\n"
        "try: main(['info', sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(make_model_dir())], check=True, capture_output=True)
