"""Chooses precision, attention and torch.compile for a run, by a short measurement at its start.

The fastest choice depends on the processor, the shapes and the length of the run. Each candidate runs a few times on
one microbatch and a model cut to two layers. Explicit settings are not measured. torch.compile is not run either: an
estimate decides whether it pays, from the measurements in benchmarks/log/2026-11-22-attention-variants.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tinyllm.config import Config
from tinyllm.errors import UsageError
from tinyllm.kernels.train import library
from tinyllm.machine import ranks
from tinyllm.machine.compiler import has_cpp_compiler
from tinyllm.machine.user_cache import cache_folder
from tinyllm.model.transformer import Transformer
from tinyllm.progress import SILENT, Note
from tinyllm.training import sharding
from tinyllm.training.checkpoint import read_state
from tinyllm.training.objective import Objective
from tinyllm.training.step import TrainingAttention, Updater, biases_refusal, build_updater, kernels_refusal
from tinyllm.training.trial import measure_update_seconds

Candidate = tuple[str, TrainingAttention]

WORDS: dict[TrainingAttention, str] = {
    "fused": "PyTorch's attention",
    "explicit": "plain attention",
    "tiled": "kernels for this processor",
}
"""The words of the reason for each kind of attention."""
CLEARLY_FASTER = 0.9
"""bfloat16 is chosen only if its time is at most this fraction of float32's."""
COMPILED_PART: dict[TrainingAttention, float] = {"fused": 0.8, "explicit": 0.58, "tiled": 1.0}
"""Time of a compiled update / time of an eager one. Explicit attention gains most: it has most to fuse.

`tiled` uses the custom kernels and is never compiled."""
COMPILE_CPU_SECONDS = 50.0
"""CPU time of torch.compile over all processors, mostly the C++ compiler's; independent of the number of layers."""
MAX_ATTENTION_BYTES = 2**30
"""Largest total of attention weights (B, H, T, T) over all layers for which explicit attention is a candidate."""


@dataclass(frozen=True)
class FastPath:
    """The chosen settings, and the reason in one line."""

    dtype: str
    attention: TrainingAttention
    compiled: bool
    reason: str

    def resolve(self, config: Config) -> Config:
        """`config` with the chosen value in place of each `auto`."""
        chosen = {"dtype": self.dtype, "attention": self.attention, "compile": "on" if self.compiled else "off"}
        return config.model_copy(update={"training": config.training.model_copy(update=chosen)})


def restore_path(config: Config, saved: Mapping[str, Any], device: torch.device) -> Config:
    """`config` with the values of a checkpoint's inputs `saved` in place of each `auto`.

    If `saved` has tiled attention and `device` or sharded weights lack it, attention and compile stay `auto`.
    """
    settings = config.training.model_dump()
    names = ("dtype", "attention", "compile")
    known = {name: saved[name] for name in names if settings[name] == "auto" and name in saved}
    has_kernels = device.type == "cpu" and library.is_supported() and not sharding.shards(config)
    if known.get("attention") == "tiled" and not has_kernels:
        del known["attention"]
        known.pop("compile", None)
    return config.model_copy(update={"training": config.training.model_copy(update=known)})


def load_train_kernels(config: Config, device: torch.device, note: Note, refusal: str = "") -> bool:
    """Loads or compiles the training kernels if `config` may use them on `device`; returns whether it can.

    `note` gets one line before compiling, and one with the reason if loading fails or the model has biases. Raises
    UsageError on failure if `config` requires tiled attention. `refusal` is a reason not to use them, such as that of
    `kernels_refusal`.
    """
    settings = config.training
    required = settings.attention == "tiled"
    biased = biases_refusal(config.model)
    refusal = biased or refusal
    if not (device.type == "cpu" and settings.dtype in ("auto", "bfloat16") and not config.model.dropout):
        refusal = "tiled attention needs a CPU, bfloat16, and a model without dropout"
    allowed = settings.attention == "auto" and settings.compile != "on"
    if not required and not (allowed and (biased or not refusal) and library.is_supported()):
        return False
    problem = refusal
    if not refusal:
        problem = library.load(cache_folder() / "kernels", note)
    if not problem:
        return True
    if required:
        raise UsageError(problem, hint="choose another with `training.attention=explicit`")
    note(f"training goes on without the kernels for this processor: {problem}")
    return False


def choose_updater(
    config: Config,
    model: nn.Module,
    objective: Objective,
    device: torch.device,
    checkpoint: Path | None,
    note: Note,
) -> tuple[Config, Updater]:
    """The config of a run with a value in place of each `auto`, and its updater, compiled if that is chosen.

    A run that resumes from `checkpoint` keeps its choice. Without updates to do, nothing is compiled. `note` gets a
    line for the choice, and for each part of it that failed. Raises UsageError as `load_train_kernels` does.
    """
    num_updates = 0 if config.training.eval_only else config.schedule.num_steps
    if checkpoint is not None:
        config = restore_path(config, read_state(checkpoint).inputs, device)
    refusal = sharding.KERNELS_REFUSAL if sharding.shards(config) else kernels_refusal(model, objective)
    path = ranks.once(lambda: choose_fast_path(config, device, num_updates, note, refusal))
    if path.attention == "tiled" and not ranks.is_first():
        load_train_kernels(path.resolve(config), device, note, refusal)
    note(f"training on {device} in {path.reason}")
    if sharding.shards(config):
        assert isinstance(model, Transformer)
        sharding.settle(path.resolve(config))
        sharding.shard(model, path.dtype, device)
    updater = build_updater(model, path.resolve(config), device, objective)
    if path.compiled and num_updates:
        problem = next(filter(None, ranks.gather(updater.warm_up(next(objective.batches(0))))), "")
        if problem:
            updater.compile(False)
            note(f"torch.compile failed, so training goes on without it: {problem}")
            path = replace(path, compiled=False)
    return path.resolve(config), updater


def choose_fast_path(
    config: Config,
    device: torch.device,
    num_updates: int,
    note: Note = SILENT.note,
    refusal: str = "",
) -> FastPath:
    """The fastest settings for `num_updates` updates of `config` on `device`; measures for seconds if any is `auto`.

    Loads kernels, notes and raises as `load_train_kernels` does; `refusal` is a reason not to use them.
    """
    settings = config.training
    candidates = _candidates(config, device, load_train_kernels(config, device, note, refusal))
    if len(candidates) == 1 and settings.compile != "auto":
        seconds = {candidates[0]: 0.0}
    else:
        seconds = {
            candidate: measure_update_seconds(_with_candidate(config, candidate), device, shortened=True)
            for candidate in candidates
        }
    when_compiled = {candidate: part * COMPILED_PART[candidate[1]] for candidate, part in seconds.items()}
    eager_seconds, compiled_seconds = (num_updates * min(times.values()) for times in (seconds, when_compiled))
    compiled, compile_reason = _decide_compile(settings.compile, device, eager_seconds, compiled_seconds)
    times = when_compiled if compiled else seconds
    dtype, attention = best = _fastest(times)
    if attention == "tiled":
        compiled, compile_reason = False, "not compiled: the kernels are compiled code already"
    reason = f"{dtype} with {WORDS[attention]}"
    if len(candidates) > 1:
        slowest = max(times, key=times.__getitem__)
        reason += f": {times[slowest] / times[best]:.1f} x the speed of {slowest[0]} with {WORDS[slowest[1]]}"
    return FastPath(dtype, attention, compiled, f"{reason}; {compile_reason}")


def _with_candidate(config: Config, candidate: Candidate) -> Config:
    """`config` with the dtype and the attention of `candidate`."""
    dtype, attention = candidate
    chosen = {"dtype": dtype, "attention": attention}
    return config.model_copy(update={"training": config.training.model_copy(update=chosen)})


def _candidates(config: Config, device: torch.device, has_kernels: bool) -> list[Candidate]:
    """The pairs of dtype and attention to measure, most precise first."""
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
    """Whether to compile a run of `eager_seconds` that takes `compiled_seconds` when compiled, and the reason."""
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
        return False, f"not compiled: compiling takes about {cost:.0f} s and would save about {saved:.0f} s"
    return (
        True,
        f"compiled: compiling takes about {cost:.0f} s and saves about {saved / 60:.1f} of "
        f"{eager_seconds / 60:.1f} minutes",
    )
