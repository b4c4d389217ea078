"""The window over a growing text: what the engine has read of it, and how it moves on when the context is full.

Shapes: B samples side by side, T time, V vocabulary.
"""

import numpy as np

from tinyllm.generation.engine import Engine, Logits, Tokens


class Window:
    """Texts that grow by one token each at a time, seen through an engine's context."""

    def __init__(self, engine: Engine, tokens: Tokens) -> None:
        """Starts with `tokens` (B, T), at least one and at most the engine's context."""
        self._engine = engine
        self._tokens = tokens
        self._cache: object = None
        self.slid = False

    def read(self) -> Logits:
        """Reads all that the window holds; logits (B, V) of what comes next."""
        return self._engine.prefill(self._tokens)

    def extend(self, tokens: Tokens) -> Logits:
        """Adds one token to each text (B,); logits (B, V) of what comes next.

        When the context is full, the window moves on: it keeps the last half of a context and reads it anew, since
        every key in the cache is turned for a position that it no longer has.
        """
        self._tokens = np.concatenate((self._tokens, tokens[:, None]), axis=1)
        if self._tokens.shape[1] > self._engine.context_length:
            self.slid = True
            self._tokens = self._tokens[:, -kept_tokens(self._engine.context_length) :]
            return self.read()
        return self._engine.decode(tokens)

    def leave_engine(self) -> None:
        """Takes the texts' cache out of the engine, for another text to use it."""
        self._cache = self._engine.release_cache()

    def enter_engine(self) -> None:
        """Puts the texts' cache back. Reading it anew instead would round other sums, and could change a text."""
        if self._cache is not None:
            self._engine.restore_cache(self._cache)
            self._cache = None


def kept_tokens(context_length: int) -> int:
    """How many tokens a sliding window keeps."""
    return max(1, context_length // 2)
