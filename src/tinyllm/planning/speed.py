"""The training speed of this machine, from a few real updates of two small models on random tokens.

An update takes  num_layers x layer_seconds + FLOPs / flops_per_second:  a fixed cost a layer, which decides for narrow
models, and arithmetic, which decides for wide ones.
"""

from dataclasses import dataclass

from tinyllm.config import Config, ModelConfig
from tinyllm.machine.device import pick_device
from tinyllm.model.size import training_flops_per_token
from tinyllm.training.path import choose_fast_path
from tinyllm.training.trial import measure_update_seconds

PROBE_WINDOWS, PROBE_TOKENS = 4, 256
PROBES = ({"hidden_size": 64, "num_layers": 4, "num_heads": 2}, {"hidden_size": 256, "num_layers": 6, "num_heads": 8})
PROBE_VOCAB_SIZE = 1024
PROBE_UPDATES = 12
PROBE_SECONDS = 3.0
LEAST_RATE = 1e6
"""FLOPs per second below which a measurement is noise."""


@dataclass(frozen=True)
class Speed:
    """The time of an update as a function of its shape."""

    layer_seconds: float
    """Seconds of each layer whatever its size."""
    flops_per_second: float
    """FLOPs that each further second computes."""

    def update_seconds(self, model: ModelConfig, num_tokens: int) -> float:
        """Seconds of an update of `num_tokens` tokens."""
        return model.num_layers * self.layer_seconds + training_flops_per_token(model) * num_tokens / (
            self.flops_per_second
        )


def measure_speed(device_name: str = "auto") -> Speed:
    """The speed of this machine, in up to ten seconds. Nothing is compiled and no file is written."""
    device = pick_device(device_name)
    measured = []
    for shape in PROBES:
        model = {"vocab_size": PROBE_VOCAB_SIZE, "context_length": PROBE_TOKENS, **shape}
        training = {"batch_size": PROBE_WINDOWS, "accumulation_steps": 1, "sequence_length": PROBE_TOKENS}
        config = Config.model_validate({"model": model, "training": training | {"compile": "off"}})
        config = choose_fast_path(config, device, num_updates=0).resolve(config)
        seconds = measure_update_seconds(config, device, num_updates=PROBE_UPDATES, limit_seconds=PROBE_SECONDS)
        flops = training_flops_per_token(config.model) * config.tokens_per_step
        measured.append((config.model.num_layers, flops, seconds))
    return solve(*measured)


def solve(narrow: tuple[int, float, float], wide: tuple[int, float, float]) -> Speed:
    """The speed that gives both measurements (layers, FLOPs, seconds); without a fixed cost if noise makes it negative.

    Two equations:  layers x a + FLOPs / r = seconds.
    """
    (layers, flops, seconds), (wide_layers, wide_flops, wide_seconds) = narrow, wide
    determinant = layers * wide_flops - wide_layers * flops
    inverse_rate = (layers * wide_seconds - wide_layers * seconds) / determinant
    overhead = (seconds * wide_flops - wide_seconds * flops) / determinant
    if inverse_rate <= 0 or overhead < 0:
        return Speed(0.0, max(LEAST_RATE, wide_flops / wide_seconds))
    return Speed(overhead, 1 / inverse_rate)
