"""The cost model against numbers worked out by hand, and against counted bytes in tests/faults/test_two_hosts.py."""

import pytest

from tinyllm.config import Config
from tinyllm.doctor.cost import Cost, Rate
from tinyllm.doctor.cost_table import explain
from tinyllm.doctor.devices import DEVICES, find_device
from tinyllm.errors import UsageError
from tinyllm.model.size import num_parameters

SHAPE = {"vocab_size": 100, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "context_length": 64}
TRAINING = {"batch_size": 2, "accumulation_steps": 4, "sequence_length": 16, "dtype": "float32"}
MATRICES = 2 * (4 * 8 * 8 + 3 * 8 * 32) + 100 * 8
"""Weights of matrix products: attention and feed-forward of two layers, and the output projection."""
NORMS = 2 * 2 * 8 + 8


def make_cost(num_devices: int = 1, rate: Rate | None = None, **training: object) -> Cost:
    config = Config.model_validate(
        {"model": SHAPE, "training": TRAINING | training, "schedule": {"num_steps": 10, "warmup_steps": 1}}
    )
    return Cost(config, num_devices, rate or Rate(1e6, "a test"))


def test_flops_are_those_of_palm_with_attention_over_a_window() -> None:
    cost = make_cost()
    assert num_parameters(cost.config.model) == MATRICES + NORMS
    assert cost.num_tokens == 10 * 8 * 16
    assert cost.flops_per_token == 6 * MATRICES + 12 * 2 * 8 * 16
    assert cost.flops == cost.flops_per_token * 1280
    assert cost.seconds == pytest.approx(cost.flops / 1e6)


def test_whole_models_send_each_gradient_twice_but_for_the_own_part() -> None:
    parameters = MATRICES + NORMS
    assert [make_cost(number).wire_bytes("ddp") for number in (1, 2, 8)] == [
        0,
        4 * parameters,
        2 * 7 * 4 * parameters // 8,
    ]
    assert make_cost(2, accumulation_steps=400).wire_bytes("ddp") == 4 * parameters


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("auto", 2)])
def test_slices_gather_blocks_twice_and_scatter_gradients_once_a_microbatch(dtype: str, width: int) -> None:
    blocks, others = 2 * (4 * 8 * 8 + 3 * 8 * 32 + 2 * 8), 100 * 8 + 8
    one = width * (2 * blocks + others) + 4 * (blocks + others)
    # 8 windows: 4 on each of two ranks, in microbatches of 2.
    assert make_cost(2, dtype=dtype).wire_bytes("fsdp") == 2 * (one // 2)
    assert make_cost(8, dtype=dtype).wire_bytes("fsdp") == 7 * one // 8


def test_memory_is_divided_by_slices_and_not_by_whole_models() -> None:
    parameters = MATRICES + NORMS
    assert make_cost(1).state_bytes("none") == make_cost(8).state_bytes("ddp") == 16 * parameters
    assert make_cost(1, dtype="bfloat16").state_bytes("none") == 20 * parameters
    assert make_cost(8).state_bytes("fsdp") == -(-16 * parameters // 8) + 4 * parameters


def test_a_gpu_has_the_logits_of_one_chunk_alone() -> None:
    """16 x 1,024 tokens and a vocabulary of 32,000: 2 GB of logits three times, or 134 MB three times."""
    shape = SHAPE | {"vocab_size": 32_000, "context_length": 1024}
    training = TRAINING | {"batch_size": 16, "accumulation_steps": 1, "sequence_length": 1024}
    schedule = {"num_steps": 10, "warmup_steps": 1}
    costs = {}
    for dtype in ("float32", "bfloat16", "float16"):
        config = Config.model_validate({"model": shape, "training": training | {"dtype": dtype}, "schedule": schedule})
        costs[dtype] = [Cost(config, 1, Rate(1e6, "a test", is_gpu=gpu)).activation_bytes() for gpu in (False, True)]
    num_tokens = 16 * 1024
    saved = 12 * 32_000 * (num_tokens - 1048) - 4 * 32_000 * 8
    assert costs["float32"][0] - costs["float32"][1] == saved - 4 * num_tokens * 8
    assert costs["bfloat16"][0] - costs["bfloat16"][1] == saved - 2 * num_tokens * 8
    assert costs["float16"][0] == costs["float16"][1]


def test_slices_are_planned_where_whole_models_do_not_fit() -> None:
    needed = make_cost(8).memory_bytes("ddp")
    for memory, parallel, fits in ((needed, "ddp", True), (needed - 1, "fsdp", True), (1, "fsdp", False)):
        cost = make_cost(8, Rate(1e6, "a test", None, memory))
        assert (cost.parallel, cost.fits) == (parallel, fits)
    assert make_cost(8, parallel="fsdp").parallel == "fsdp"


def test_exchanges_take_their_time_where_the_link_is_known() -> None:
    known = make_cost(2, Rate(1e6, "a test", link_bytes_per_second=1e3))
    assert known.wire_seconds == pytest.approx(known.wire_bytes("ddp") / 1e3)
    assert known.seconds == pytest.approx(10 * (known.compute_seconds + known.wire_seconds))
    assert make_cost(2).wire_seconds == 0


def test_more_devices_than_windows_are_refused() -> None:
    with pytest.raises(UsageError, match="gpus is 9; an update has 8 windows"):
        make_cost(9)


def test_each_number_of_the_table_has_a_reason() -> None:
    rows = list(explain(make_cost(2, Rate(1e6, "a test")), price=2.0))
    names = [name for name, _, _ in rows]
    assert names[:4] == ["parameters", "tokens", "updates", "FLOPs"]
    assert names[5:9] == ["memory, ddp", "wire, ddp", "memory, fsdp", "wire, fsdp"]
    assert names[-3:] == ["time", "device hours", "money"]
    assert all(value and reason for _, value, reason in rows)
    assert "money" not in [name for name, _, _ in explain(make_cost(), None)]


def test_devices_are_found_by_name_and_have_a_source() -> None:
    assert find_device("H100") is DEVICES["h100"]
    assert find_device("RTX 4090").flops_per_second == 165e12
    assert all(device.source and device.memory_bytes > 1e9 for device in DEVICES.values())
    with pytest.raises(UsageError, match="gpu is 'abacus'; known are a100, b200"):
        find_device("abacus")
