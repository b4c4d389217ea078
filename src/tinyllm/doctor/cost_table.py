"""The table of a run's cost: each number with its reason in plain words."""

from collections.abc import Iterator

from tinyllm.doctor.cost import Cost, Parallel
from tinyllm.doctor.traffic import pass_bytes
from tinyllm.model.size import num_parameters
from tinyllm.planning.reasons import show_time

Row = tuple[str, str, str]
"""Name, value and reason."""
OPTIMAL_TOKENS_PER_PARAMETER = 20
"""Tokens a parameter that train the best model of a given number of FLOPs (Hoffmann et al. 2022, Chinchilla)."""

LEAST_DAYS = 2
"""Shorter times are shown in hours or less."""


def explain(cost: Cost, price: float | None) -> Iterator[Row]:
    """The rows of the table; `price` is that of a device for an hour."""
    yield from _work_rows(cost)
    yield from _device_rows(cost)
    parts = f"{_seconds(cost.compute_seconds)} of passes an update"
    if cost.wire_seconds:
        parts += f" and {_seconds(cost.wire_seconds)} of exchanges, not overlapped"
    elif cost.num_devices > 1:
        parts += "; exchanges are left out, for the network is unknown"
    days = cost.seconds / 86400
    shown = f"{days:,.1f} days" if days >= LEAST_DAYS else show_time(cost.seconds)
    yield "time", shown, f"{parts}; without evaluations and checkpoints"
    hours = cost.num_devices * days * 24
    yield "device hours", f"{hours:,.3g}", f"{cost.num_devices} x {days * 24:,.3g} hours"
    if price is not None:
        yield "money", f"{hours * price:,.2f}", f"{price:g} for a device and hour"


def _work_rows(cost: Cost) -> Iterator[Row]:
    config, model = cost.config, cost.config.model
    parameters, window = num_parameters(model), config.training.sequence_length
    yield (
        "parameters",
        f"{parameters:,}",
        f"{model.num_layers} layers, {model.hidden_size} wide, {model.vocab_size:,} tokens in the vocabulary",
    )
    yield (
        "tokens",
        f"{cost.num_tokens:,}",
        f"{cost.num_tokens / parameters:,.3g} a parameter; about {OPTIMAL_TOKENS_PER_PARAMETER} are best "
        "for a given number of FLOPs (Hoffmann et al. 2022)",
    )
    yield (
        "updates",
        f"{config.schedule.num_steps:,}",
        f"{config.tokens_per_step:,} tokens each, in windows of {window:,}",
    )
    products = (cost.flops_per_token - cost.attention_flops_per_token) // 6
    yield (
        "FLOPs",
        f"{cost.flops:.3g}",
        f"a token: 6 x {products:,} weights of matrix products, and 12 x {model.num_layers} layers x "
        f"{model.attention_size} x {window:,} of attention (PaLM, appendix B)",
    )


def _device_rows(cost: Cost) -> Iterator[Row]:
    rate, num_devices = cost.rate, cost.num_devices
    tokens = num_devices * rate.flops_per_second / cost.flops_per_token
    yield "tokens a second", f"{tokens:,.0f}", rate.reason if num_devices == 1 else f"{num_devices} x {rate.reason}"
    ways: tuple[Parallel, ...] = ("none",) if num_devices == 1 else ("ddp", "fsdp")
    for way in ways:
        yield f"memory{_with(way)}", _bytes(cost.memory_bytes(way)), _memory_reason(cost, way)
        if num_devices > 1:
            yield f"wire{_with(way)}", _bytes(cost.wire_bytes(way)), _wire_reason(cost, way)


def _memory_reason(cost: Cost, way: Parallel) -> str:
    small = pass_bytes(cost.config)
    whole = f"{16 if small == 4 else 16 + 2 * small} bytes a parameter" + (
        ", two 16-bit copies among them" if small < 4 else ""
    )
    states = f"16 bytes a parameter / {cost.num_devices}, and two gathered blocks" if way == "fsdp" else whole
    limit = "" if cost.rate.memory_bytes is None else f" of {_bytes(cost.rate.memory_bytes)} on a device"
    logits = "the head's loss in chunks" if cost.has_chunks else "whole logits"
    activations = f"activations, with {logits}, {_bytes(cost.activation_bytes())}"
    return f"{states}: {_bytes(cost.state_bytes(way))}; {activations}{limit}"


def _wire_reason(cost: Cost, way: Parallel) -> str:
    num_devices = cost.num_devices
    if way == "ddp":
        return (
            f"sent by each in an update: ring all-reduce, 2 x {num_devices - 1} / {num_devices} x 4 bytes a parameter"
        )
    small, count = pass_bytes(cost.config), cost.num_microbatches
    return (
        f"sent by each in an update: {num_devices - 1} / {num_devices} of two gathers of {small} bytes and one "
        f"reduce-scatter of 4 bytes a parameter, for each of {count} microbatch{'es' if count > 1 else ''}"
    )


def _with(way: Parallel) -> str:
    return "" if way == "none" else f", {way}"


def _bytes(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.3g} {unit}"
    return f"{number / 1e3:,.3g} kB"


def _seconds(number: float) -> str:
    return f"{number:,.3g} s" if number >= 1 else f"{number * 1e3:,.3g} ms"
