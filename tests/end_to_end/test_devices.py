"""Training and generation on each device: the same small run on a CPU and on a GPU."""

from pathlib import Path

import pytest
import torch

import tinyllm
from tinyllm import storage
from tinyllm.training import chunked_loss, memory
from training_runs import losses

GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
)
MODEL = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "context_length": 32}


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_a_run_learns_resumes_and_generates(device: str, tiny_shards: Path, tmp_path: Path) -> None:
    def train(num_steps: int, resume: bool) -> float:
        outcome = tinyllm.train(
            tiny_shards,
            tmp_path / "run",
            recipe="storybook",
            resume=resume,
            model={**MODEL, "intermediate_size": 64},
            training={
                "batch_size": 4,
                "sequence_length": 32,
                "eval_interval": 10,
                "device": device,
                "dtype": "float32",
                "compile": "off",
                "attention": "fused",
            },
            schedule={"num_steps": num_steps, "peak": 1e-2, "warmup_steps": 2},
        )
        assert outcome.evaluation is not None
        return outcome.evaluation.loss

    first = train(10, resume=False)
    assert train(30, resume=True) < first

    on_device = tinyllm.load(tmp_path / "run" / "model", device=device)
    text = on_device.generate("Once upon a time", temperature=0, max_new_tokens=8)[0].text
    on_cpu = tinyllm.load(tmp_path / "run" / "model", device="cpu")
    assert text == on_cpu.generate("Once upon a time", temperature=0, max_new_tokens=8)[0].text


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_a_run_with_the_loss_in_chunks_goes_on_as_if_it_had_not_stopped(
    device: str, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU in bfloat16 and compiled; there the flash kernel adds up gradients in any order."""
    on_gpu = device == "cuda"
    monkeypatch.setattr(chunked_loss, "pays_off", lambda hidden, output_weight: True)
    monkeypatch.setattr(memory, "chunk_tokens", lambda vocab_size: 32)
    run = tmp_path / "run"

    def train(resume: bool) -> list[float]:
        tinyllm.train(
            tiny_shards,
            run,
            recipe="storybook",
            resume=resume,
            model={**MODEL, "intermediate_size": 64},
            training={
                "batch_size": 4,
                "sequence_length": 32,
                "eval_interval": 10,
                "checkpoint_interval": 5,
                "keep_checkpoints": 9,
                "device": device,
                "dtype": "bfloat16" if on_gpu else "float32",
                "compile": "on" if on_gpu else "off",
                "attention": "fused",
            },
            schedule={"num_steps": 10, "peak": 1e-2, "warmup_steps": 2},
        )
        return list(losses(run).values())

    whole = train(resume=False)
    assert whole[-1] < whole[0]
    storage.remove_directory(run / "checkpoints" / "step-00000010", "checkpoint")
    assert train(resume=True) == (pytest.approx(whole, rel=1e-2) if on_gpu else whole)
