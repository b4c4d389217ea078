"""The sliding windows of growing texts: each text has a slot of the engine, and drops its beginning when that is full.

Shapes: B texts of one call, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np

from tinyllm.generation.engines.protocol import Engine, Logits, Tokens


class Window:
    """The last tokens of each text, at most the engine's context. Texts are numbered from 0."""

    def __init__(self, engine: Engine, prompts: Sequence[Sequence[int]], num_copies: int = 1) -> None:
        """`num_copies` texts begin with each of `prompts`, of 1 to `context_length` tokens. Text p * num_copies + i
        is copy i of prompt p.
        """
        self._engine = engine
        self._prompts, self._num_copies = prompts, num_copies
        self._tokens = [list(prompt) for prompt in prompts for _ in range(num_copies)]
        self.slots: dict[int, int] = {}
        """The slot of each text that is open."""
        self.slid = [False] * len(self._tokens)
        """Whether each text outgrew the context, so that its window moved."""

    def start(self) -> Logits:
        """Reads each prompt once and copies it to its texts; returns the logits (B, V) of every text's next token."""
        prompts = [np.array(prompt, np.int64) for prompt in self._prompts]
        first = [number * self._num_copies for number in range(len(prompts))]
        self.slots.update(zip(first, self._engine.open(len(prompts)), strict=True))
        logits = self._engine.read([self.slots[text] for text in first], prompts)
        if self._num_copies == 1:
            return logits
        for text in first:
            copies = self._engine.fork(self.slots[text], self._num_copies - 1)
            self.slots.update(enumerate(copies, start=text + 1))
        return np.repeat(logits, self._num_copies, axis=0)

    def append(self, texts: Sequence[int], tokens: Tokens) -> bool:
        """Appends one of `tokens` (B,) to each of `texts`, unread; returns whether each has room in its slot.

        When the context is full, a window keeps its last half and gets an empty slot. That half is read again, because
        cached keys are rotated for their old positions.
        """
        has_room = True
        for text, token in zip(texts, tokens.tolist(), strict=True):
            if append(self._tokens[text], token, self._engine.context_length):
                self._restart(text)
                has_room = False
        return has_room

    def read(self, texts: Sequence[int]) -> Logits:
        """Reads what the slots of `texts` lack; returns the logits (B, V) of the next tokens."""
        slots = [self.slots[text] for text in texts]
        lacking = (self._tokens[text][self._engine.length(slot) :] for text, slot in zip(texts, slots, strict=True))
        return self._engine.read(slots, [np.array(tokens, np.int64) for tokens in lacking])

    def extend(self, texts: Sequence[int], tokens: Tokens) -> Logits:
        """Appends one of `tokens` (B,) to each of `texts` and reads it; returns the logits (B, V) after them."""
        if self.append(texts, tokens):
            return self._engine.read([self.slots[text] for text in texts], tokens[:, None])
        return self.read(texts)

    def close(self, texts: Sequence[int]) -> None:
        """Closes the slots of `texts`; texts without a slot stay as they are."""
        self._engine.close([self.slots.pop(text) for text in texts if text in self.slots])

    def _restart(self, text: int) -> None:
        """Gives `text`, whose window slid, an empty slot."""
        self.slid[text] = True
        self.close([text])
        (self.slots[text],) = self._engine.open(1)


def append(window: list[int], token: int, context_length: int) -> bool:
    """Appends `token` to `window`; returns whether that was one too many, so that the window slid.

    A window that slid holds its last half, and `token` is the last of it: no slot holds these tokens at its start.
    """
    window.append(token)
    if len(window) <= context_length:
        return False
    del window[: -kept_tokens(context_length)]
    return True


def kept_tokens(context_length: int) -> int:
    """Number of tokens that the window keeps when it slides."""
    return max(1, context_length // 2)
