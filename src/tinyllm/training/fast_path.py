"""How a run computes on this machine: precision, attention and torch.compile, by a short measurement at its start.

Which is fastest depends on the processor, the shapes and the length of the run, so it is tried: a model cut to two
layers, one microbatch, each candidate a few times. What is set explicitly is not measured. torch.compile is not tried:
whether it pays is estimated from how much it gave on the machines where tinyllm was measured (docs/benchmarks.md).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tinyllm.config import Config
from tinyllm.errors import UsageError
from tinyllm.model.size import num_parameters
from tinyllm.model.transformer import Transformer
from tinyllm.runtime import cache_folder, has_cpp_compiler
from tinyllm.training.kernels import library
from tinyllm.training.step import TrainingAttention, Updater

Candidate = tuple[str, TrainingAttention]

MEASURED_TOKENS = 1024
NUM_MEASUREMENTS = 3
CLEARLY_FASTER = 0.9
"""bfloat16 must take at most this part of float32's time: below that, exactness is worth more."""
COMPILED_PART: dict[TrainingAttention, float] = {"fused": 0.8, "explicit": 0.58, "tiled": 1.0}
"""What a compiled update takes of the same one in eager mode: explicit attention is most of what there is to fuse.

`tiled`, the pass by our own kernels, is not compiled at all."""
COMPILE_CPU_SECONDS = 50.0
"""Of all processors together, most of it in the C++ compiler; the same for any number of layers."""
MAX_ATTENTION_BYTES = 2**30
"""Explicit attention keeps its weights for the backward pass; past this it is not considered."""


@dataclass(frozen=True)
class FastPath:
    """What was chosen, and why in one line."""

    dtype: str
    attention: TrainingAttention
    compiled: bool
    reason: str

    def resolve(self, config: Config) -> Config:
        """`config` with what was chosen in the place of every `auto`."""
        chosen = {"dtype": self.dtype, "attention": self.attention, "compile": "on" if self.compiled else "off"}
        return config.model_copy(update={"training": config.training.model_copy(update=chosen)})


def as_before(config: Config, saved: Mapping[str, Any], device: torch.device) -> Config:
    """`config` with what a checkpoint's inputs `saved` say in the place of every `auto`: a run goes on as it began.

    Where `device` has no tiles, `auto` stays in their place, and for compilation, which goes with it.
    """
    settings = config.training.model_dump()
    names = ("dtype", "attention", "compile")
    known = {name: saved[name] for name in names if settings[name] == "auto" and name in saved}
    if known.get("attention") == "tiled" and not (device.type == "cpu" and library.is_supported()):
        del known["attention"]
        known.pop("compile", None)
    return config.model_copy(update={"training": config.training.model_copy(update=known)})


def load_kernels(config: Config, device: torch.device, announce: Callable[[str], None]) -> bool:
    """Whether `config` can have tiled attention on `device`; loads its kernels, or compiles them.

    `announce` gets a line before that, and the reason where it fails. Raises UsageError if it does and no other
    attention is allowed.
    """
    settings = config.training
    required = settings.attention == "tiled"
    fits = device.type == "cpu" and settings.dtype in ("auto", "bfloat16") and not config.model.dropout
    wanted = settings.attention == "auto" and settings.compile != "on"
    if not required and not (wanted and fits and library.is_supported()):
        return False
    problem = "tiled attention needs a CPU, bfloat16, and a model without dropout"
    if fits:
        problem = library.load(cache_folder() / "kernels", announce)
    if not problem:
        return True
    if required:
        raise UsageError(f"{problem}; choose another with --training.attention explicit")
    announce(f"training goes on without tiled attention: {problem}")
    return False


def choose_fast_path(
    config: Config, device: torch.device, num_updates: int, announce: Callable[[str], None] = lambda _: None
) -> FastPath:
    """The fastest way for `num_updates` updates of `config` on `device`; takes seconds where something is `auto`.

    Loads and announces as `load_kernels` does, and raises as it does.
    """
    settings = config.training
    candidates = _candidates(config, device, load_kernels(config, device, announce))
    if len(candidates) == 1 and settings.compile != "auto":
        seconds = {candidates[0]: 0.0}
    else:
        seconds = {candidate: measure_update_seconds(config, device, *candidate) for candidate in candidates}
    when_compiled = {candidate: part * COMPILED_PART[candidate[1]] for candidate, part in seconds.items()}
    eager_seconds, compiled_seconds = (num_updates * min(times.values()) for times in (seconds, when_compiled))
    compiled, compile_reason = _decide_compile(settings.compile, device, eager_seconds, compiled_seconds)
    times = when_compiled if compiled else seconds
    dtype, attention = best = _fastest(times)
    if attention == "tiled":
        compiled, compile_reason = False, "not compiled: its kernels leave nothing to fuse"
    reason = f"{dtype}, {attention} attention"
    if len(candidates) > 1:
        slowest = max(times, key=times.__getitem__)
        reason += f" ({times[slowest] / times[best]:.1f} x the speed of {slowest[0]}, {slowest[1]} here)"
    return FastPath(dtype, attention, compiled, f"{reason}; {compile_reason}")


def measure_update_seconds(config: Config, device: torch.device, dtype: str, attention: TrainingAttention) -> float:
    """Seconds of an eager update without its optimizer, scaled up from two layers and some windows."""
    settings = config.training
    short = config.model.model_copy(update={"num_layers": min(2, config.model.num_layers)})
    num_windows = max(1, min(settings.batch_size, MEASURED_TOKENS // settings.sequence_length))
    with torch.random.fork_rng(devices=[]):
        model = Transformer(short).to(device).train()
        tokens = torch.randint(short.vocab_size, (num_windows, settings.sequence_length + 1), device=device)
        updater = Updater(model, [], dtype=dtype, attention=attention, grad_clip=0.0, device=device)
        seconds = _time_passes(updater, tokens)
    num_microbatches = settings.batch_size * settings.accumulation_steps / num_windows
    return seconds * num_microbatches * num_parameters(config.model) / num_parameters(short)


def _time_passes(updater: Updater, tokens: torch.Tensor) -> float:
    """Seconds of a forward and backward pass: the least of some, the one that other programs disturbed least.

    On a CPU one thread is timed by the time it really ran, and the others are taken to share the work evenly: threads
    that wait for each other beside other programs would tell of those programs alone.
    """
    num_threads = torch.get_num_threads()
    on_cpu = updater.device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    seconds = []
    torch.set_num_threads(1)
    try:
        for _ in range(1 + NUM_MEASUREMENTS):
            start = clock()
            updater.backward(tokens, 1).item()
            seconds.append(clock() - start)
    finally:
        torch.set_num_threads(num_threads)
    return min(seconds[1:]) / (num_threads if on_cpu else 1)  # the first one also allocates


def _candidates(config: Config, device: torch.device, has_kernels: bool) -> list[Candidate]:
    """What may be chosen, the most exact first."""
    settings, shape = config.training, config.model
    dtypes, attentions = ["float32"], ["fused"]
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        dtypes = ["bfloat16"]
    if device.type == "cpu":
        dtypes = ["float32", "bfloat16"]
        num_weights = shape.num_layers * settings.batch_size * shape.num_heads * settings.sequence_length**2
        if 4 * num_weights < MAX_ATTENTION_BYTES:
            attentions = ["fused", "explicit"]
    if has_kernels:
        attentions = [*attentions, "tiled"]
    if settings.dtype != "auto":
        dtypes = [settings.dtype]
    if settings.attention != "auto":
        attentions = [settings.attention]
    pairs = [(dtype, attention) for dtype in dtypes for attention in attentions]
    return [(dtype, kind) for dtype, kind in pairs if kind != "tiled" or dtype == "bfloat16"]  # type: ignore[misc]


def _fastest(seconds: Mapping[Candidate, float]) -> Candidate:
    best = min(seconds, key=seconds.__getitem__)
    exact = [candidate for candidate in seconds if candidate[0] == "float32"]
    if best[0] != "float32" and exact:
        best_exact = min(exact, key=seconds.__getitem__)
        if seconds[best] > CLEARLY_FASTER * seconds[best_exact]:
            return best_exact
    return best


def _decide_compile(
    setting: str, device: torch.device, eager_seconds: float, compiled_seconds: float
) -> tuple[bool, str]:
    """Whether to compile a run that takes so long without and with it, and why."""
    if setting == "off":
        return False, "not compiled, as set"
    if device.type == "mps":
        return False, "not compiled: torch.compile does not train on mps"
    if not has_cpp_compiler():
        return False, "not compiled: there is no C++ compiler (install g++ or clang++ for faster training)"
    if setting == "on":
        return True, "compiled, as set"
    saved = eager_seconds - compiled_seconds
    cost = COMPILE_CPU_SECONDS / torch.get_num_threads()
    if saved < 2 * cost:
        return False, f"not compiled: that takes about {cost:.0f} s and would save about {saved:.0f} s"
    return True, f"compiled: takes about {cost:.0f} s, saves about {saved / 60:.1f} of {eager_seconds / 60:.1f} minutes"
