"""The CPU engine against the PyTorch model: the same weights, the same logits, whichever way the tokens come in."""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tinyllm.config import ModelConfig, SamplingConfig, WeightsKind
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.team import Team
from tinyllm.kernels.decode.weights import PackedWeights
from tinyllm.model.transformer import Transformer
from tinyllm.model_dir import open_tensors

SHAPES: dict[str, dict[str, Any]] = {
    # 172 is no whole number of blocks, as in stories260K; 3 heads of 12 fill no vector; 70 positions no block.
    "grouped": {"hidden_size": 64, "num_heads": 8, "num_kv_heads": 4, "intermediate_size": 172},
    "odd": {"hidden_size": 36, "num_heads": 3, "num_kv_heads": 1, "intermediate_size": 50, "tie_embeddings": False},
    # Heads together wider than the residual stream, and every option of the family.
    "options": {
        "hidden_size": 40,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_size": 14,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_scaling": "llama3",
        "rope_factor": 8.0,
        "rope_original_context": 32,
    },
    "wide": {"hidden_size": 96, "num_heads": 2, "rope_theta": 5_000.0, "norm_eps": 1e-3, "num_layers": 1},
}
TOLERANCES: dict[WeightsKind, float] = {"fp32": 2e-5, "bf16": 2e-5, "int8": 2e-3}
"""Largest differences of logits around 1. The reference of bf16 and int8 has the engine's rounded weights. So the
differences come from the order of sums, and for int8 from activations rounded to 16,383 steps."""
CompiledKernels = Callable[[WeightsKind], Kernels]


def make_model(shape: str) -> Transformer:
    torch.manual_seed(1)
    fields: dict[str, Any] = {"num_layers": 2, "vocab_size": 203, "context_length": 70} | SHAPES[shape]
    model = Transformer(ModelConfig(**fields)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            vector = torch.rand_like(parameter) + (0.5 if "norm" in name else -0.5)
            parameter.copy_(vector if parameter.dim() == 1 else parameter * 6)
    return model


def make_engine(model: Transformer, kernels: Kernels, kind: WeightsKind, num_threads: int = 1) -> CpuEngine:
    tensors = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    return CpuEngine(model.config, PackedWeights(model.config, tensors, kind), kernels, num_threads)


def keep_what_the_engine_keeps(model: Transformer, kind: WeightsKind) -> None:
    """Rounds the weights of `model` by PyTorch's own means."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or kind == "fp32":
                continue
            scales = parameter.abs().amax(dim=1, keepdim=True) / 127
            rounded = parameter.bfloat16() if kind == "bf16" else (parameter / scales).round() * scales
            parameter.copy_(rounded)


@torch.inference_mode()
def expected_logits(model: Transformer, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    logits: npt.NDArray[np.float32] = model(torch.from_numpy(tokens)).numpy()
    return logits


@pytest.fixture
def tokens() -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, 203, (3, 70))


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("kind", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES)
def test_token_by_token_it_is_the_model(
    shape: str,
    kind: WeightsKind,
    num_threads: int,
    tokens: npt.NDArray[np.int64],
    compiled_kernels: CompiledKernels,
) -> None:
    model = make_model(shape)
    engine = make_engine(model, compiled_kernels(kind), kind, num_threads)
    keep_what_the_engine_keeps(model, kind)
    expected = expected_logits(model, tokens)[0]
    assert expected.std() > 0.5  # the comparison is of real numbers
    slots = engine.open(1)
    logits = [engine.read(slots, tokens[:1, t : t + 1]).copy() for t in range(70)]
    assert engine.length(slots[0]) == 70
    np.testing.assert_allclose(np.concatenate(logits), expected, rtol=TOLERANCES[kind], atol=TOLERANCES[kind])


@pytest.mark.parametrize("kind", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES)
def test_prompts_and_batches_are_the_model_too(
    shape: str, kind: WeightsKind, tokens: npt.NDArray[np.int64], compiled_kernels: CompiledKernels
) -> None:
    model = make_model(shape)
    engine = make_engine(model, compiled_kernels(kind), kind)
    keep_what_the_engine_keeps(model, kind)
    expected = expected_logits(model, tokens)
    slots = engine.open(3)
    logits = [engine.read(slots, part).copy() for part in np.split(tokens, range(50, 70), axis=1)]
    np.testing.assert_allclose(np.stack(logits, 1), expected[:, 49:], rtol=TOLERANCES[kind], atol=TOLERANCES[kind])


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_is_the_same_to_the_last_bit_in_any_batch(
    shape: str, kind: WeightsKind, tokens: npt.NDArray[np.int64], compiled_kernels: CompiledKernels
) -> None:
    """One text alone in slot 0, or in three slots of a batch with others, by as many threads."""
    model = make_model(shape)
    alone, batch = (make_engine(model, compiled_kernels(kind), kind, num_threads=2) for _ in range(2))
    slot, slots = alone.open(1), batch.open(9)
    texts = np.concatenate([tokens, tokens[::-1], tokens])
    for part in np.split(texts, [30, 31, 32], axis=1)[:3]:
        expected = alone.read(slot, part[:1]).copy()
        found = batch.read(slots, part)
        for same in (0, 5, 6):
            np.testing.assert_array_equal(found[same : same + 1], expected)


def test_a_prompt_longer_than_a_pass_is_read_in_parts(
    tokens: npt.NDArray[np.int64], compiled_kernels: CompiledKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyllm.generation.engines.cpu_engine.ROWS_PER_PASS", 33)
    model = make_model("grouped")
    engine = make_engine(model, compiled_kernels("fp32"), "fp32")
    logits = engine.read(engine.open(3), tokens)
    np.testing.assert_allclose(logits, expected_logits(model, tokens)[:, -1], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("last_pass", [1, 4, 6])
def test_an_interrupt_while_texts_are_read_does_not_move_later_logits(
    last_pass: int,
    tokens: npt.NDArray[np.int64],
    compiled_kernels: CompiledKernels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pending signal is raised as the compiled call returns, between two passes of one read."""
    monkeypatch.setattr("tinyllm.generation.engines.cpu_engine.ROWS_PER_PASS", 33)
    engine, fresh = (make_engine(make_model("grouped"), compiled_kernels("fp32"), "fp32") for _ in range(2))
    run, num_passes = engine._run_pass, 0

    def interrupted(*args: int, **kwargs: int) -> None:
        nonlocal num_passes
        run(*args, **kwargs)
        num_passes += 1
        if num_passes == last_pass:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_run_pass", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.read(engine.open(3), tokens)
    for first in (tokens[:, :1], tokens[:2, :1]):
        found, expected = (each.read(each.open(len(first)), first) for each in (engine, fresh))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("field", ["logits", "packed", "output_rows", "weighed"])
def test_an_interrupt_while_memory_grows_leaves_an_engine_that_works(
    field: str, tokens: npt.NDArray[np.int64], compiled_kernels: CompiledKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, fresh = (make_engine(make_model("grouped"), compiled_kernels("fp32"), "fp32") for _ in range(2))
    memory = engine._memory
    hold, config = memory.hold, SamplingConfig(temperature=0.8)

    def continue_one(each: CpuEngine, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        logits = each.read(each.open(len(rows)), rows)
        return each.choose(logits, np.zeros(logits.shape, np.bool_), np.full(len(rows), 0.4), config)[0]

    def interrupted(name: str, array: npt.NDArray[Any]) -> None:
        if name == field:
            raise KeyboardInterrupt
        hold(name, array)

    continue_one(engine, tokens[:1, :2])
    with monkeypatch.context() as patch:
        patch.setattr(memory, "hold", interrupted)
        with pytest.raises(KeyboardInterrupt):
            continue_one(engine, tokens)
    for rows in (tokens[:1, :2], tokens):
        np.testing.assert_array_equal(continue_one(engine, rows), continue_one(fresh, rows))


@pytest.mark.parametrize("inner", [16_512, 16_544, 40_000])
def test_int8_sums_of_wide_matrices_fit_their_numbers(inner: int, compiled_kernels: CompiledKernels) -> None:
    """All products of the down projection are maximal. 16,512 is the largest width with full int16 activations."""
    config = ModelConfig(vocab_size=32, hidden_size=32, num_layers=1, num_heads=1, intermediate_size=inner)
    tensors = {
        name: np.full(parameter.shape, 0 if "self_attn" in name else 1, np.float32)
        for name, parameter in Transformer(config).named_parameters()
    }
    tokens = np.zeros((1, 1), np.int64)
    logits = {}
    for kind in get_args(WeightsKind):
        engine = CpuEngine(config, PackedWeights(config, tensors, kind), compiled_kernels(kind))
        logits[kind] = engine.read(engine.open(1), tokens)
    np.testing.assert_allclose(logits["fp32"], 32, rtol=1e-4)
    np.testing.assert_allclose(logits["int8"], logits["fp32"], rtol=1e-3)


def test_a_text_is_the_same_however_often_helpers_sleep_and_wake(
    tokens: npt.NDArray[np.int64], compiled_kernels: CompiledKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Helpers sleep after one round, so that each token races with their waking."""
    monkeypatch.setattr("tinyllm.kernels.decode.team.PATIENCE", 1)
    model = make_model("wide")
    alone, helped = (make_engine(model, compiled_kernels("fp32"), "fp32", count) for count in (1, 4))
    for _ in range(10):
        slots, helped_slots = alone.open(1), helped.open(1)
        for t in range(70):
            token = tokens[:1, t : t + 1]
            expected = alone.read(slots, token)
            np.testing.assert_allclose(helped.read(helped_slots, token), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_read_from_a_model_directory(make_model_dir: Callable[..., Path], dtype: torch.dtype) -> None:
    """Every kind of number that a file may hold, against PyTorch's own reading."""
    from safetensors.torch import load_file, save_file

    path = make_model_dir()
    written = {name: tensor.to(dtype) for name, tensor in load_file(path / "model.safetensors").items()}
    save_file(written, path / "model.safetensors")
    read = open_tensors(path)
    assert set(read) == set(written)
    for name, tensor in written.items():
        np.testing.assert_array_equal(read[name], tensor.float().numpy())


def test_a_helper_that_still_waits_sees_memory_that_came_later(
    tokens: npt.NDArray[np.int64], compiled_kernels: CompiledKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiting helper must notice new addresses: of the weights, and of larger activations for a longer prompt."""
    monkeypatch.setattr("tinyllm.kernels.decode.team.PATIENCE", 2_000_000)
    model = make_model("grouped")
    engine = make_engine(model, compiled_kernels("int8"), "int8", num_threads=2)
    keep_what_the_engine_keeps(model, "int8")
    for length in (1, 9, 20, 40, 70):
        expected = expected_logits(model, tokens[:, :length])[:, -1]
        slots = engine.open(3)
        logits = engine.read(slots, tokens[:, :length])
        np.testing.assert_allclose(logits, expected, atol=TOLERANCES["int8"])
        engine.close(slots)


def test_a_helper_does_not_sleep_through_a_pass_that_began_while_it_waited_for_python() -> None:
    rounds: queue.SimpleQueue[int] = queue.SimpleQueue()
    is_built = threading.Event()

    def give_up_when_a_pass_begins(plan: int, role: int) -> None:
        is_built.wait()
        team.wake()
        rounds.put(role)

    plan = at.new_plan()
    team = Team(cast(Kernels, give_up_when_a_pass_begins), plan, 2)
    is_built.set()
    assert [rounds.get(timeout=10) for _ in range(3)] == [at.HELP] * 3
    team.close()
