"""What computes logits, seen from the generator: any of several engines, with or without torch.

Shapes: B samples side by side, T time, V vocabulary.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from tinyllm.config import SamplingConfig

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


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

    def choose(self, logits: Logits, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> tuple[Tokens, Doubles]:
        """The next token of each row of `logits` (B, V) and its log-probability, (B,) each, as `sampling` defines them.

        `seen` (B, V) marks tokens that occurred; one number of [0, 1) for each row is in `uniforms` (B,). Raises
        FormatError for logits that are not finite.
        """
