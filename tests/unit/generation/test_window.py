"""The window against a plain list of tokens, on an engine that only records what it reads."""

from collections.abc import Sequence

import numpy as np

from tinyllm.generation.engines.protocol import Logits, Tokens
from tinyllm.generation.window import Window, kept_tokens

CONTEXT = 6


class Recorder:
    """Slots that hold lists of tokens; the logits of a text are its length and its last token."""

    context_length = CONTEXT

    def __init__(self) -> None:
        self.texts: dict[int, list[int]] = {}
        self.num_opened = 0
        self.num_read: list[int] = []

    def open(self, num_slots: int) -> list[int]:
        slots = list(range(self.num_opened, self.num_opened + num_slots))
        self.num_opened += num_slots
        self.texts.update({slot: [] for slot in slots})
        return slots

    def fork(self, slot: int, num_copies: int = 1, length: int | None = None) -> list[int]:
        assert length is None
        copies = self.open(num_copies)
        self.texts.update({copy: list(self.texts[slot]) for copy in copies})
        return copies

    def length(self, slot: int) -> int:
        return len(self.texts[slot])

    def read(self, slots: Sequence[int], tokens: Sequence[Tokens] | Tokens) -> Logits:
        assert len(slots) == len(tokens)
        for slot, text in zip(slots, tokens, strict=True):
            self.texts[slot] += text.tolist()
            assert 0 < len(self.texts[slot]) <= CONTEXT
        self.num_read += [len(text) for text in tokens]
        return np.array([[len(self.texts[slot]), self.texts[slot][-1]] for slot in slots], np.float32)

    def close(self, slots: Sequence[int]) -> None:
        for slot in slots:
            del self.texts[slot]


def make_window(prompts: list[list[int]], num_copies: int = 1) -> tuple[Recorder, Window]:
    engine = Recorder()
    return engine, Window(engine, prompts, num_copies)  # type: ignore[arg-type]


def held(engine: Recorder, window: Window) -> dict[int, list[int]]:
    return {text: engine.texts[slot] for text, slot in window.slots.items()}


def test_prompts_are_read_once_whatever_the_number_of_copies() -> None:
    engine, window = make_window([[1, 2, 3], [4]], num_copies=3)
    np.testing.assert_array_equal(window.start(), [[3, 3]] * 3 + [[1, 4]] * 3)
    assert held(engine, window) == dict(enumerate([[1, 2, 3]] * 3 + [[4]] * 3))
    assert engine.num_read == [3, 1]


def test_each_text_slides_when_its_own_context_is_full() -> None:
    """Text 0 fills the context of 6 after four tokens, text 1 after five; each keeps 3 of its last 7."""
    engine, window = make_window([[1, 2], [3]])
    window.start()
    plain = {0: [1, 2], 1: [3]}
    for token in range(10, 30):
        logits = window.extend([0, 1], np.array([token, -token]))
        for text, added in ((0, token), (1, -token)):
            plain[text] = [*plain[text], added]
            if len(plain[text]) > CONTEXT:
                plain[text] = plain[text][-3:]
        assert held(engine, window) == plain
        np.testing.assert_array_equal(logits, [[len(plain[0]), token], [len(plain[1]), -token]])
        assert window.slid == [token >= 14, token >= 15]
    assert len(engine.texts) == 2


def test_texts_that_are_closed_leave_the_others_as_they_are() -> None:
    engine, window = make_window([[1]], num_copies=4)
    window.start()
    window.close([1, 2])
    window.extend([3, 0], np.array([7, 8]))
    assert held(engine, window) == {0: [1, 8], 3: [1, 7]}
    window.close(range(4))
    assert engine.texts == {}


def test_half_of_the_context_is_kept_and_at_least_one_token() -> None:
    assert [kept_tokens(length) for length in (1, 2, 3, 256)] == [1, 1, 1, 128]
