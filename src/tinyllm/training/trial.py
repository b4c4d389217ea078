"""Measures the time of an update on this machine, on random tokens.

Callers use it to plan a run before it starts. Nothing of a run is read or written.
"""

import math
import statistics
import time

import torch

from tinyllm.config import Config
from tinyllm.machine.device import pick_device
from tinyllm.model.size import num_parameters
from tinyllm.model.transformer import Transformer
from tinyllm.training.step import Updater, build_updater

SHORTENED_TOKENS = 1024
SHORTENED_LAYERS = 2
NUM_PASSES = 3


def measure_update_seconds(
    config: Config,
    device: torch.device | None = None,
    *,
    num_updates: int = 15,
    limit_seconds: float = math.inf,
    shortened: bool = False,
) -> float:
    """Seconds of an optimizer update with the shapes of `config`, in which no setting is `auto`.

    The median of `num_updates` real updates, or of as many as begin within `limit_seconds`, but at least one. If it
    compiles, a later run in the same process reuses the compiled code. `device` is by default that of `config`.

    With `shortened`, extrapolates from a few eager passes of two layers and at most `SHORTENED_TOKENS` tokens, without
    the optimizer. That takes a second, and suffices to compare precisions and attentions.
    """
    device = device or pick_device(config.training.device)
    if shortened:
        return _extrapolate(config, device)
    settings = config.training
    updater = build_updater(Transformer(config.model).to(device).train(), config, device)
    shape = (settings.batch_size, settings.sequence_length + 1)
    tokens = torch.randint(config.model.vocab_size, shape, device=device)
    updater.warm_up(tokens)
    seconds: list[float] = []
    end = time.perf_counter() + limit_seconds
    while len(seconds) < num_updates + 2:
        start = time.perf_counter()
        if start > end and len(seconds) > 2:
            break
        updater.update([tokens] * settings.accumulation_steps, config.tokens_per_step)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])  # the first two updates also allocate memory


def _extrapolate(config: Config, device: torch.device) -> float:
    """Seconds of an update, from the passes of a short model: time is about proportional to the parameters."""
    settings = config.training
    assert settings.attention != "auto"
    short = config.model.model_copy(update={"num_layers": min(SHORTENED_LAYERS, config.model.num_layers)})
    num_windows = max(1, min(settings.batch_size, SHORTENED_TOKENS // settings.sequence_length))
    with torch.random.fork_rng(devices=[]):
        model = Transformer(short).to(device).train()
        tokens = torch.randint(short.vocab_size, (num_windows, settings.sequence_length + 1), device=device)
        updater = Updater(model, [], dtype=settings.dtype, attention=settings.attention, grad_clip=0.0, device=device)
        seconds = _time_passes(updater, tokens)
    num_microbatches = settings.batch_size * settings.accumulation_steps / num_windows
    return seconds * num_microbatches * num_parameters(config.model) / num_parameters(short)


def _time_passes(updater: Updater, tokens: torch.Tensor) -> float:
    """Seconds of a forward and backward pass: the minimum of several, to exclude noise of other programs.

    On a CPU this is the process time of one thread / number of threads. The wall time of several threads would
    measure how long they wait for processors that other programs hold.
    """
    num_threads = torch.get_num_threads()
    on_cpu = updater.device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    seconds = []
    torch.set_num_threads(1)
    try:
        for _ in range(1 + NUM_PASSES):
            start = clock()
            updater.backward(tokens, 1).item()
            seconds.append(clock() - start)
    finally:
        torch.set_num_threads(num_threads)
    return min(seconds[1:]) / (num_threads if on_cpu else 1)  # the first pass also allocates memory
