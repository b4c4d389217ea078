"""The sliding window over growing texts: appends tokens, and drops the beginning when the context is full.

Shapes: B samples of a batch, T time, V vocabulary.
"""

import numpy as np

from tinyllm.generation.engines.protocol import Engine, Logits, Tokens


class Window:
    """The last tokens of a batch of texts that grow by one token each per step, at most the engine's context."""

    def __init__(self, engine: Engine, tokens: Tokens) -> None:
        """Starts with `tokens` (B, T), where 1 <= T <= the engine's context."""
        self._engine = engine
        self._tokens = tokens
        self._cache: object = None
        self.slid = False

    def read(self) -> Logits:
        """Prefills the engine with the whole window; returns the logits (B, V) of the next token."""
        return self._engine.prefill(self._tokens)

    def extend(self, tokens: Tokens) -> Logits:
        """Appends one token to each text (B,); returns the logits (B, V) of the next token.

        When the context is full, the window keeps the last half of it and prefills again: cached keys are rotated for
        their old positions.
        """
        self._tokens = np.concatenate((self._tokens, tokens[:, None]), axis=1)
        if self._tokens.shape[1] > self._engine.context_length:
            self.slid = True
            self._tokens = self._tokens[:, -kept_tokens(self._engine.context_length) :]
            return self.read()
        return self._engine.decode(tokens)

    def leave_engine(self) -> None:
        """Moves the texts' cache out of the engine, so that other texts can use it."""
        self._cache = self._engine.release_cache()

    def enter_engine(self) -> None:
        """Moves the texts' cache back into the engine. Prefilling instead could round differently and change a text."""
        if self._cache is not None:
            self._engine.restore_cache(self._cache)
            self._cache = None


def kept_tokens(context_length: int) -> int:
    """Number of tokens that the window keeps when it slides."""
    return max(1, context_length // 2)
