"""What computes logits, seen from the generator: any of several engines, with or without torch.

Shapes: B samples side by side, T time, V vocabulary.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


class Engine(Protocol):
    """A loaded model with the keys and values of what it has read so far."""

    @property
    def context_length(self) -> int:
        """Tokens that it can hold."""

    @property
    def length(self) -> int:
        """Tokens that it holds now, in each row."""

    @property
    def description(self) -> str:
        """What computes, in a few words."""

    def prefill(self, tokens: Tokens) -> Logits:
        """Forgets everything, reads `tokens` (B, T) with 1 <= T <= context_length; logits (B, V) of what comes next."""

    def decode(self, tokens: Tokens) -> Logits:
        """Reads one more token of each row (B,) where `length` < `context_length`; logits (B, V) of what comes next."""
