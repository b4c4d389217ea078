"""The protocol of engines, which compute logits for the generator, with or without torch.

An engine holds texts in slots. Each slot has its own length, so texts of different lengths are read side by side. The
usual life of a slot:

    slots = engine.open(1)                               an empty text
    logits = engine.read(slots, [prompt])                (1, V)
    slots += engine.fork(slots[0], 2)                    two copies of the text
    logits = engine.read(slots, tokens[:, None])         one more token each, (3, V)
    engine.close(slots)                                  their memory is reused

`read_logits` and `read_states` read whole texts, in slots of their own, and keep nothing.

Shapes: B slots of one call, T tokens of a text, L layers, D model size, V vocabulary.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tinyllm.config import SamplingConfig

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
States = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


class Engine(Protocol):
    """A loaded model with key/value memory in slots. One thread at a time may call an engine."""

    @property
    def context_length(self) -> int:
        """Largest number of tokens that a slot can hold."""

    @property
    def vocab_size(self) -> int:
        """Number of logits after a token."""

    @property
    def description(self) -> str:
        """The engine's name, device and precision, for the user."""

    def missing_bytes(self, num_slots: int, num_positions: int) -> int:
        """Bytes to allocate beyond those held, to open `num_slots` more slots of `num_positions` tokens each."""

    def available_bytes(self) -> int | None:
        """Bytes of memory left where slots are allocated; None if unknown."""

    def open(self, num_slots: int) -> list[int]:
        """Opens `num_slots` empty slots; returns their numbers. Raises MemoryError or torch's OutOfMemoryError."""

    def length(self, slot: int) -> int:
        """Number of tokens in `slot`. Raises ValueError if the slot is not open."""

    def read(self, slots: Sequence[int], tokens: Sequence[Tokens] | Tokens) -> Logits:
        """Appends `tokens[i]`, one or more, to `slots[i]`; returns the logits (B, V) after the last token of each.

        The next call may overwrite the logits. A row does not depend on the other slots of the call; on the CPU engine
        it is bit-identical. Raises ValueError before reading for a slot that is not open or occurs twice. An empty
        text, or one longer than the context, raises ValueError too.
        """

    def read_each(self, slot: int, tokens: Tokens) -> Logits:
        """Appends `tokens` (T,) to `slot`; returns the logits (T, V) after each of them, an array of the caller's.

        Raises as `read`, and FormatError for logits that are not finite: the slot is of no more use then.
        """

    def read_logits(self, texts: Sequence[Tokens]) -> list[Logits]:
        """The logits (T, V) after every token of each text; the arrays are the caller's.

        Raises ValueError as `read`, MemoryError or torch's OutOfMemoryError as `open`.
        """

    def read_states(self, text: Tokens, layers: Sequence[int]) -> States:
        """Hidden states (len(layers), T, D) of one text, in Hugging Face's order.

        Layer 0 is the embedding, and layer l the residual stream after l layers. Layer L is that after the last norm.
        Raises as `read_logits`.
        """

    def fork(self, slot: int, num_copies: int = 1, length: int | None = None) -> list[int]:
        """Opens `num_copies` slots that hold the first `length` tokens of `slot` (None = all); returns their numbers.

        The copies share nothing with `slot` afterwards. Raises as `open`, and ValueError for a length that `slot` does
        not have.
        """

    def close(self, slots: Sequence[int]) -> None:
        """Closes `slots`. Raises ValueError for a slot that is not open."""

    def choose(self, logits: Logits, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> tuple[Tokens, Doubles]:
        """The next token of each row of `logits` (B, V) and its log-probability, (B,) each, as `sampling` defines them.

        `seen` (B, V) marks tokens that occurred; `uniforms` (B,) holds one random number in [0, 1) for each row.
        Raises FormatError for logits that are not finite.
        """


@runtime_checkable
class ChoosesOnDevice(Protocol):
    """An engine that reads and chooses in one call: logits stay on its device."""

    def read_and_choose(
        self,
        slots: Sequence[int],
        tokens: Tokens,
        seen: Mask,
        uniforms: Doubles,
        generated: Sequence[Sequence[int]],
        config: SamplingConfig,
    ) -> tuple[Tokens, Doubles]:
        """Appends `tokens` (B,) to `slots`; returns the token after each and its log-probability, (B,) each.

        The same as `read`, then `TokenChoice.choose` by `config`. Raises as both.
        """
