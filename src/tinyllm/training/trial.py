"""How long an update takes on this machine: a few real ones on random tokens, timed.

For those who must plan a run before it starts; nothing of a run is read or written.
"""

import statistics
import time

import torch

from tinyllm.config import Config
from tinyllm.model.transformer import Transformer
from tinyllm.runtime import pick_device
from tinyllm.training.optimizer import build_optimizer
from tinyllm.training.step import Updater


def measure_step_seconds(config: Config, num_steps: int = 5) -> float:
    """Median seconds of an optimizer update with the shapes, precision and device of `config`."""
    settings = config.training
    device = pick_device(settings.device)
    model = Transformer(config.model).to(device)
    optimizer = build_optimizer(model, config.optimizer)
    updater = Updater(model, optimizer, dtype=settings.dtype, grad_clip=config.optimizer.grad_clip, device=device)
    shape = (settings.batch_size, settings.sequence_length + 1)
    tokens = torch.randint(config.model.vocab_size, shape, device=device)
    num_tokens = settings.batch_size * settings.accumulation_steps * settings.sequence_length
    seconds = []
    for _ in range(num_steps + 2):
        start = time.perf_counter()
        updater.update([tokens] * settings.accumulation_steps, num_tokens)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])  # the first two also allocate
