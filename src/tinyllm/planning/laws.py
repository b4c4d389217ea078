"""Scaling laws of small models: the validation loss that a run will reach, and its best learning rate.

The form is Chinchilla's (Hoffmann et al. 2022), in bits per byte. Repeated text is worth less, as in Muennighoff et al.
2023. Each corpus has its floor and scale:

    bits per byte = E + S ((N0 / N)^a + (D0 / D')^b),   D' = U (1 + R* (1 - e^(-(R - 1) / R*)))

N parameters, D trained bytes, U bytes of the corpus, R = D / U epochs. The floor E and the scale S are
powers of the corpus's bits per byte after bz2, E times a constant. `benchmarks/scaling_laws.py` measures the series and
fits the constants into `laws.json`; `docs/scaling-laws.md` shows them.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

CEILING = 1.25
"""Largest expected loss, times the corpus's bits per byte after bz2: the law rises without limit for short runs."""

BITS_OF_A_BYTE = 8.0
"""Largest expected loss of any text; bz2 makes texts of a few bytes longer than they are."""


@dataclass(frozen=True)
class Laws:
    """The constants of the laws."""

    floor: float
    """E of a corpus with one bit per byte after bz2: the part that neither parameters nor text reduce."""
    floor_exponent: float
    """Power of the corpus's bits per byte after bz2 in E."""
    scale_exponent: float
    """Power of the corpus's bits per byte after bz2 in S; negative, as text with a high floor has less to learn."""
    parameters: float
    """N0."""
    parameters_exponent: float
    """a."""
    data_bytes: float
    """D0."""
    data_exponent: float
    """b."""
    epochs: float
    """R*: repetitions of the text after which another one helps little."""
    peak: float
    """Learning rate of Muon for a model of a million parameters."""
    peak_exponent: float
    """Power of the parameters by which the best learning rate falls."""

    def bits_per_byte(self, num_parameters: float, num_bytes: float, corpus_bytes: float, difficulty: float) -> float:
        """The expected validation loss after training on `num_bytes` from a corpus of `corpus_bytes`."""
        floor: float = self.floor * difficulty**self.floor_exponent
        capacity: float = (self.parameters / num_parameters) ** self.parameters_exponent
        data: float = (self.data_bytes / self.effective_bytes(num_bytes, corpus_bytes)) ** self.data_exponent
        scale: float = difficulty**self.scale_exponent
        return min(floor + scale * (capacity + data), ceiling(difficulty))

    def effective_bytes(self, num_bytes: float, corpus_bytes: float) -> float:
        """The bytes of fresh text that are worth as much as `num_bytes` from a corpus of `corpus_bytes`."""
        if num_bytes <= corpus_bytes:
            return num_bytes
        again = num_bytes / corpus_bytes - 1
        return corpus_bytes * (1 + self.epochs * (1 - math.exp(-again / self.epochs)))

    def best_peak(self, num_parameters: float) -> float:
        """The best peak of the learning rate, rounded to two digits."""
        return float(f"{self.peak * (num_parameters / 1e6) ** -self.peak_exponent:.1e}")


def ceiling(difficulty: float) -> float:
    """The largest expected loss of a text with `difficulty` bits per byte after bz2; a short run may end above it."""
    return min(CEILING * difficulty, BITS_OF_A_BYTE)


@cache
def measured_laws() -> Laws:
    """The laws that were fitted to the measured series."""
    return Laws(**json.loads((files(__package__) / "laws.json").read_text(encoding="utf-8"))["laws"])
