"""Measures the time of an update on this machine, by real updates on random tokens.

Callers use it to plan a run before it starts. Nothing of a run is read or written.
"""

import math
import statistics
import time

import torch

from tinyllm.config import Config
from tinyllm.machine.device import pick_device
from tinyllm.model.transformer import Transformer
from tinyllm.training.step import build_updater


def measure_step_seconds(config: Config, num_steps: int = 15, limit_seconds: float = math.inf) -> float:
    """Median seconds of an optimizer update with the shapes and device of `config`, in which no setting is `auto`.

    Measures `num_steps` updates, or as many as begin within `limit_seconds`, but at least one.

    If it compiles, a later run in the same process reuses the compiled code.
    """
    settings = config.training
    device = pick_device(settings.device)
    updater = build_updater(Transformer(config.model).to(device).train(), config, device)
    shape = (settings.batch_size, settings.sequence_length + 1)
    tokens = torch.randint(config.model.vocab_size, shape, device=device)
    updater.warm_up(tokens)
    seconds: list[float] = []
    end = time.perf_counter() + limit_seconds
    while len(seconds) < num_steps + 2:
        start = time.perf_counter()
        if start > end and len(seconds) > 2:
            break
        updater.update([tokens] * settings.accumulation_steps, config.tokens_per_step)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])  # the first two updates also allocate memory
