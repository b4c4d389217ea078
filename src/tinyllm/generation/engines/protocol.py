"""The protocol of engines, which compute logits for the generator, with or without torch.

Shapes: B rows of a batch, T time, V vocabulary.
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
    """A loaded model with a key/value cache.

    One thread at a time may call an engine. Texts take turns by moving their caches out and in; the logits of each text
    are bit-identical to those of the text alone.
    """

    @property
    def context_length(self) -> int:
        """Largest number of tokens that a row of the cache can hold."""

    @property
    def length(self) -> int:
        """Number of tokens in each row of the cache."""

    @property
    def description(self) -> str:
        """The engine's name, device and precision, for the user."""

    def release_cache(self) -> object:
        """Moves the cache out of the engine and returns it; the engine is then empty."""

    def restore_cache(self, cache: object) -> None:
        """Puts back a cache that `release_cache` returned, in place of the current one."""

    def missing_bytes(self, num_texts: int, num_positions: int) -> int:
        """Bytes to allocate beyond those held, for `num_texts` texts of `num_positions` tokens each."""

    def available_bytes(self) -> int | None:
        """Bytes of memory left where the cache is allocated; None if unknown."""

    def prefill(self, tokens: Tokens) -> Logits:
        """Empties the cache and reads `tokens` (B, T), 1 <= T <= context_length; returns next-token logits (B, V)."""

    def decode(self, tokens: Tokens) -> Logits:
        """Reads one more token of each row (B,), if `length` < `context_length`; returns next-token logits (B, V)."""

    def choose(self, logits: Logits, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> tuple[Tokens, Doubles]:
        """The next token of each row of `logits` (B, V) and its log-probability, (B,) each, as `sampling` defines them.

        `seen` (B, V) marks tokens that occurred; `uniforms` (B,) holds one random number in [0, 1) for each row.
        Raises FormatError for logits that are not finite.
        """
