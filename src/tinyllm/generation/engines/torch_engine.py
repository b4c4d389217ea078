"""The PyTorch engine, for every device: texts in slots of one key/value cache, read with or without padding masks.

Slot i is row i of the cache. Texts that read equally many tokens go through the model in one pass.

Shapes: B slots of one call, T tokens a slot, V vocabulary.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from tinyllm.config import SamplingConfig
from tinyllm.errors import FormatError
from tinyllm.generation import sampling
from tinyllm.generation.engines import arguments
from tinyllm.generation.engines.protocol import Doubles, Logits, Mask, States, Tokens
from tinyllm.generation.engines.slots import SlotTable
from tinyllm.machine.memory import available_memory_bytes
from tinyllm.model.kv_cache import KVCache
from tinyllm.model.size import cache_bytes

if TYPE_CHECKING:
    from tinyllm.model.transformer import Transformer


class TorchEngine:
    """Runs a model on the device and in the dtype of its weights; returns logits as float32."""

    _num_spare = 0
    """Positions of a slot beyond the context."""

    def __init__(self, model: "Transformer") -> None:
        self._model = model.eval()
        self._table = SlotTable(model.config.context_length)
        self._cache: KVCache | None = None
        self._clears_slots = False
        """Whether slots are zeroed when they are opened: one of them may hold numbers that are not finite."""

    @property
    def context_length(self) -> int:
        """Largest number of tokens that a slot can hold."""
        return self._model.config.context_length

    @property
    def vocab_size(self) -> int:
        """Number of logits after a token."""
        return self._model.config.vocab_size

    @property
    def description(self) -> str:
        """The engine's name, device and precision, for the user."""
        weight = self._model.output_weight
        return f"PyTorch engine on {weight.device}, {str(weight.dtype).removeprefix('torch.')}"

    def missing_bytes(self, num_slots: int, num_positions: int) -> int:  # noqa: ARG002 (a slot spans the context)
        """Bytes to allocate beyond those held, for `num_slots` more slots; each spans the whole context."""
        config, weight = self._model.config, self._model.output_weight
        slot = cache_bytes(config, weight.itemsize)
        cache = 0
        if self._table.num_missing(num_slots):
            # While slots are open, the grown cache is filled from the old one: both are in memory.
            held = 0 if self._table.num_open else self._table.num_slots
            cache = (self._table.num_open + num_slots - held) * slot
        logits = config.vocab_size * (weight.itemsize + 8)  # in the model's dtype, as float32, and a copy
        return cache + num_slots * logits

    def available_bytes(self) -> int | None:
        """Bytes of memory left on the model's device; None if unknown."""
        device = self._model.output_weight.device
        if device.type == "cuda":
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return torch.cuda.mem_get_info(device)[0] + unused
        return available_memory_bytes() if device.type == "cpu" else None

    def open(self, num_slots: int) -> list[int]:
        """Opens `num_slots` empty slots; returns their numbers. Raises torch's OutOfMemoryError or MemoryError."""
        return self._open(num_slots, length=0)

    def length(self, slot: int) -> int:
        """Number of tokens in `slot`."""
        return self._table.length(slot)

    def read(self, slots: Sequence[int], tokens: Sequence[Tokens] | Tokens) -> Logits:
        """Appends `tokens[i]` to `slots[i]`; returns the logits (B, V) after the last token of each."""
        counts = [len(text) for text in tokens]
        starts = self._table.starts(slots, np.array(counts)).tolist()
        arguments.check_texts(tokens, self.vocab_size)
        if len(set(counts)) == 1:
            logits = self._read(slots, starts, np.asarray(tokens))
        else:
            logits = np.empty((len(slots), self._model.config.vocab_size), np.float32)
            for count in sorted(set(counts)):
                texts = [text for text in range(len(slots)) if counts[text] == count]
                logits[texts] = self._read(
                    [slots[text] for text in texts],
                    [starts[text] for text in texts],
                    np.stack([tokens[text] for text in texts]),
                )
        self._table.advance(slots, np.array(counts))
        return logits

    @torch.inference_mode()
    def read_each(self, slot: int, tokens: Tokens) -> Logits:
        """Appends `tokens` (T,) to `slot`; returns the logits (T, V) after each of them."""
        counts = np.array([len(tokens)])
        starts = self._table.starts([slot], counts).tolist()
        arguments.check_texts([tokens], self.vocab_size)
        hidden = self._model.hidden_states(self._on_device(tokens[None]), self._held_cache().select([slot], starts))
        logits: Logits = self._model.project(hidden[0]).float().cpu().numpy()
        self._table.advance([slot], counts)
        if not np.isfinite(logits).all():
            self._clears_slots = True
            raise sampling.not_finite()
        return logits

    @torch.inference_mode()
    def read_logits(self, texts: Sequence[Tokens]) -> list[Logits]:
        """The logits (T, V) after every token of each text, in one pass without a cache."""
        arguments.check_texts(texts, self.vocab_size)
        longest = max(map(len, texts))
        # Padding follows a text: causal attention does not see it.
        padded = np.stack([np.pad(text, (0, longest - len(text))) for text in texts])
        hidden = self._model.hidden_states(self._on_device(padded))
        logits = (self._model.project(row[: len(text)]) for row, text in zip(hidden, texts, strict=True))
        return [each.float().cpu().numpy() for each in logits]

    @torch.inference_mode()
    def read_states(self, text: Tokens, layers: Sequence[int]) -> States:
        """Hidden states (len(layers), T, D) of one text."""
        arguments.check_texts([text], self.vocab_size)
        arguments.check_layers(layers, self._model.config.num_layers)
        states = self._model.model.layer_states(self._on_device(text[None]))
        return np.stack([states[layer][0].float().cpu().numpy() for layer in layers])

    def fork(self, slot: int, num_copies: int = 1, length: int | None = None) -> list[int]:
        """Opens `num_copies` slots that hold the first `length` tokens of `slot`. Raises as `open`."""
        length = self._table.copied_length(slot, length)
        copies = self._open(num_copies, length)
        if copies and length:
            self._held_cache().copy_row(slot, copies, length)
        return copies

    def close(self, slots: Sequence[int]) -> None:
        """Closes `slots`; their memory is reused."""
        self._table.close(slots)

    def choose(self, logits: Logits, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> tuple[Tokens, Doubles]:
        """The next token of each row of `logits` (B, V) and its log-probability, (B,) each."""
        try:
            tokens = sampling.choose(logits, seen, uniforms, config)
        except FormatError:
            self._clears_slots = True
            raise
        return tokens, sampling.log_probability(logits, tokens)

    @torch.inference_mode()
    def _read(self, slots: Sequence[int], starts: Sequence[int], tokens: Tokens) -> Logits:
        """One pass of `tokens` (B, T); returns the logits (B, V) after the last token of each text."""
        hidden = self._model.hidden_states(self._on_device(tokens), self._held_cache().select(slots, starts))
        logits: Logits = self._model.project(hidden[:, -1]).float().cpu().numpy()
        return logits

    def _on_device(self, tokens: Tokens) -> torch.Tensor:
        return torch.from_numpy(tokens).to(self._model.output_weight.device)

    def _held_cache(self) -> KVCache:
        assert self._cache is not None, "open comes first"
        return self._cache

    def _open(self, num_slots: int, length: int) -> list[int]:
        num_missing = self._table.num_missing(num_slots)
        if num_missing and self._table.num_open == 0:
            # The old memory is freed before the new memory is allocated.
            self._cache, num_missing = None, num_slots
            self._table.clear()
        if num_missing:
            self._cache = self._grown_cache(self._table.num_slots + num_missing)
            self._table.add(num_missing)
        slots = self._table.open(num_slots, length)
        if self._clears_slots:  # a masked position has weight 0, and 0 x NaN is NaN
            self._held_cache().clear_rows(slots)
        return slots

    def _grown_cache(self, num_rows: int) -> KVCache:
        """A cache of `num_rows` rows that begins with the rows held."""
        weight = self._model.output_weight
        cache = KVCache(self._model.config, num_rows, weight.device, weight.dtype, self._num_spare)
        if self._cache is not None:
            held = self._cache.keys.shape[1]
            cache.keys[:, :held], cache.values[:, :held] = self._cache.keys, self._cache.values
        return cache
