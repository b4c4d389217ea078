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
    """A loaded model with a cache: the keys and values of what it has read.

    One thread at a time may call an engine. Texts take turns by moving caches out and in: each text's logits are then
    the same as alone, to the last bit.
    """

    @property
    def context_length(self) -> int:
        """Tokens that it can hold."""

    @property
    def length(self) -> int:
        """Tokens that it holds now, in each row."""

    @property
    def description(self) -> str:
        """What computes, in a few words."""

    def release_cache(self) -> object:
        """The cache with what was read, moved out of the engine, which then holds nothing."""

    def restore_cache(self, cache: object) -> None:
        """Puts a cache back that `release_cache` gave; the one in the engine is dropped."""

    def missing_bytes(self, num_texts: int, num_positions: int) -> int:
        """Bytes of memory needed beyond those held, for so many texts of so many tokens each."""

    def available_bytes(self) -> int | None:
        """Bytes of memory left where the cache is kept; None where the system does not say."""

    def prefill(self, tokens: Tokens) -> Logits:
        """Forgets everything, reads `tokens` (B, T) with 1 <= T <= context_length; logits (B, V) of what comes next."""

    def decode(self, tokens: Tokens) -> Logits:
        """Reads one more token of each row (B,) where `length` < `context_length`; logits (B, V) of what comes next."""

    def choose(self, logits: Logits, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> tuple[Tokens, Doubles]:
        """The next token of each row of `logits` (B, V) and its log-probability, (B,) each, as `sampling` defines them.

        `seen` (B, V) marks tokens that occurred; one number of [0, 1) for each row is in `uniforms` (B,). Raises
        FormatError for logits that are not finite.
        """
