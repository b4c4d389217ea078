"""The CPU engine: NumPy and compiled code, without torch and BLAS.

The compiled program takes rows through the whole model in one call. A row is one token of one text: a call reads the
next token of one text, the next tokens of many texts, or prompts. This module writes the rows of each pass and counts
the tokens of each slot; `cpu_memory` has the program's other memory.

Shapes: B slots of one call, N rows of one pass, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from tinyllm.config import ModelConfig, SamplingConfig
from tinyllm.generation import sampling
from tinyllm.generation.engines import arguments
from tinyllm.generation.engines.cpu_memory import ProgramMemory
from tinyllm.generation.engines.protocol import Doubles, Logits, Mask, States, Tokens
from tinyllm.generation.engines.slots import SlotTable
from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode.blocks import POSITION_BLOCK
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.team import Team, pick_num_threads
from tinyllm.kernels.decode.weights import PackedWeights, aligned_zeros, padded
from tinyllm.machine.memory import available_memory_bytes

ROWS_PER_PASS = 256
"""Largest number of rows in one pass of a call that reads several tokens a slot: more need more memory for no speed."""


class CpuEngine:
    """Runs a model on the CPU; see `protocol.Engine`. The logits that it returns are read-only."""

    def __init__(self, config: ModelConfig, weights: PackedWeights, kernels: Kernels, num_threads: int = 0) -> None:
        """`num_threads` of 0 picks as many as help a model of this size."""
        self._config, self.weights, self._kernels = config, weights, kernels
        self._memory = ProgramMemory(config)
        self._plan = self._memory.plan
        self._sampling: SamplingConfig | None = None
        self._sampled, self._seen = np.empty((0, 0), np.float32), np.empty((0, 0), np.bool_)
        self._table = SlotTable(config.context_length)
        self._caches: list[npt.NDArray[np.float32]] = []
        self._clears_slots = False
        """Whether slots are zeroed when they are opened: one of them may hold numbers that are not finite."""
        self._addresses = np.empty(0, np.int64)
        self._team = Team(kernels, self._plan, num_threads or pick_num_threads(weights.numbers.nbytes))
        self._memory.write_model(weights)

    @property
    def context_length(self) -> int:
        """Largest number of tokens that a slot can hold."""
        return self._config.context_length

    @property
    def vocab_size(self) -> int:
        """Number of logits after a token."""
        return self._config.vocab_size

    @property
    def num_threads(self) -> int:
        """Threads that decode one text."""
        return self._team.num_threads

    @property
    def description(self) -> str:
        """The engine's name, precision and threads, for the user."""
        threads = f"{self.num_threads} thread{'s' if self.num_threads > 1 else ''}"
        return f"CPU engine, {self.weights.kind} weights, {threads}"

    def missing_bytes(self, num_slots: int, num_positions: int) -> int:
        """Bytes to allocate beyond those held, to open `num_slots` more slots of `num_positions` tokens each.

        Positions that are never written take no memory.
        """
        config = self._config
        positions = padded(min(num_positions, config.context_length))
        held = sum(min(positions, padded(self._table.longest[slot])) for slot in self._table.free(num_slots))
        position_floats = 2 * config.num_layers * config.num_kv_heads * config.head_size
        # Each text has logits in the engine, a copy of the first logits, weights to choose from, and one row.
        widths = 7 * config.hidden_size + config.attention_size + 4 * config.intermediate_size
        row = 3 * config.vocab_size + padded(widths)
        return 4 * (position_floats * (num_slots * positions - held) + num_slots * row)

    def available_bytes(self) -> int | None:
        """Bytes of memory left for this process; None if the system does not tell."""
        return available_memory_bytes()

    def open(self, num_slots: int) -> list[int]:
        """Opens `num_slots` empty slots; returns their numbers. Raises MemoryError."""
        return self._open(num_slots, length=0)

    def length(self, slot: int) -> int:
        """Number of tokens in `slot`."""
        return self._table.length(slot)

    def read(self, slots: Sequence[int], tokens: Sequence[Tokens] | Tokens) -> Logits:
        """Appends `tokens[i]` to `slots[i]`; returns the logits (B, V) after the last token of each."""
        if len(slots) == 1 and len(tokens) == 1 and len(tokens[0]) == 1:
            return self._read_one(slots[0], int(tokens[0][0]))
        if isinstance(tokens, np.ndarray):
            counts = np.full(len(tokens), tokens.shape[1])
        else:
            counts = np.array([len(text) for text in tokens])
        starts = self._table.starts(slots, counts)
        flat = np.concatenate(tokens)
        arguments.check_tokens(flat, self.vocab_size)
        self._memory.reserve_logits(len(slots))
        if counts.max() == 1:
            self._write_rows(np.array(slots), starts, flat)
            self._memory.outputs[: len(slots)] = np.arange(len(slots))
            self._run_pass(len(slots), len(slots))
        else:
            self._read_ragged(np.array(slots), starts, counts, flat)
        self._table.advance(slots, counts)
        return self._memory.first_logits(len(slots))

    def read_each(self, slot: int, tokens: Tokens) -> Logits:
        """Appends `tokens` (T,) to `slot`; returns the logits (T, V) after each of them."""
        counts = np.array([len(tokens)])
        (start,) = self._table.starts([slot], counts)
        arguments.check_tokens(tokens, self.vocab_size)
        logits = self._read_rows(np.full(len(tokens), slot), start + np.arange(len(tokens)), tokens)
        self._table.advance([slot], counts)
        if not np.isfinite(logits).all():
            self._clears_slots = True
            raise sampling.not_finite()
        return logits

    def read_logits(self, texts: Sequence[Tokens]) -> list[Logits]:
        """The logits (T, V) after every token of each text."""
        arguments.check_texts(texts, self.vocab_size)
        counts = np.array([len(text) for text in texts])
        ends = np.cumsum(counts)
        positions = np.concatenate([np.arange(count) for count in counts])
        with self._slots_of(counts) as slots:
            logits = self._read_rows(np.repeat(slots, counts), positions, np.concatenate(texts))
        return np.split(logits, ends[:-1])

    def read_states(self, text: Tokens, layers: Sequence[int]) -> States:
        """Hidden states (len(layers), T, D) of one text: one pass through the first l layers for each layer l."""
        config = self._config
        arguments.check_texts([text], self.vocab_size)
        arguments.check_layers(layers, config.num_layers)
        states = np.empty((len(layers), len(text), config.hidden_size), np.float32)
        with self._slots_of(np.array([len(text)])) as slots:
            for rows in _passes(len(text)):
                num_rows = rows.stop - rows.start
                for place, layer in enumerate(layers):
                    self._write_rows(np.repeat(slots, num_rows), np.arange(len(text))[rows], text[rows])
                    self._run_first_layers(num_rows, layer)
                    source = self._memory.held["normed" if layer == config.num_layers else "residual"]
                    states[place, rows] = source[:num_rows, : config.hidden_size]
        return states

    def fork(self, slot: int, num_copies: int = 1, length: int | None = None) -> list[int]:
        """Opens `num_copies` slots that hold the first `length` tokens of `slot`. Raises MemoryError."""
        length = self._table.copied_length(slot, length)
        copies = self._open(num_copies, length)
        num_blocks = -(-length // POSITION_BLOCK)
        for copy in copies:
            self._caches[copy][..., :num_blocks, :, :] = self._caches[slot][..., :num_blocks, :, :]
        return copies

    def close(self, slots: Sequence[int]) -> None:
        """Closes `slots`; their memory is reused."""
        self._table.close(slots)

    def choose(self, logits: Logits, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> tuple[Tokens, Doubles]:
        """The next token of each row of `logits` (B, V), and its log-probability (B,)."""
        if logits is not self._sampled or seen is not self._seen or config is not self._sampling:
            self._prepare_choices(logits, seen, config)
        count = len(logits)
        self._memory.uniforms[:count] = uniforms
        self._kernels(self._memory.address, at.SAMPLE)
        if self._plan["not_finite"]:
            self._plan["not_finite"] = 0
            self._clears_slots = True
            raise sampling.not_finite()
        log_normalizers = np.log(self._memory.normalizers[:count])
        return self._memory.chosen[:count].copy(), self._memory.chosen_logits[:count] - log_normalizers

    def _open(self, num_slots: int, length: int) -> list[int]:
        config, num_missing = self._config, self._table.num_missing(num_slots)
        num_blocks = padded(config.context_length) // POSITION_BLOCK
        shape = (2, config.num_layers, config.num_kv_heads, num_blocks, config.head_size, POSITION_BLOCK)
        added = [aligned_zeros(shape, np.float32) for _ in range(num_missing)]
        self._caches += added
        addresses = np.array([cache.ctypes.data for cache in added], np.int64)
        self._addresses = np.concatenate((self._addresses, addresses))
        self._table.add(num_missing)
        slots = self._table.open(num_slots, length)
        if self._clears_slots:  # attention multiplies the rest of a block by weights of 0, and 0 x NaN is NaN
            for slot in slots:
                self._caches[slot].fill(0)
        return slots

    @contextmanager
    def _slots_of(self, counts: Tokens) -> Iterator[Tokens]:
        """Slots (B,) for texts of `counts` tokens, open inside the block. Raises as `SlotTable.starts`."""
        slots = self._open(len(counts), length=0)
        try:
            self._table.starts(slots, counts)
            self._table.advance(slots, counts)
            yield np.array(slots)
        finally:
            self._table.close(slots)

    def _read_rows(self, slots: Tokens, positions: Tokens, tokens: Tokens) -> Logits:
        """The logits (N, V) after each of `tokens` (N,), which are read into `slots` (N,) at `positions` (N,)."""
        logits = np.empty((len(tokens), self._config.vocab_size), np.float32)
        for rows in _passes(len(tokens)):
            self._write_rows(slots[rows], positions[rows], tokens[rows])
            self._run_whole_pass(rows.stop - rows.start)
            logits[rows] = self._memory.logits[: rows.stop - rows.start]
        return logits

    def _run_whole_pass(self, num_rows: int) -> None:
        """Runs a pass whose every row gives logits."""
        self._memory.reserve_logits(num_rows)
        self._memory.outputs[:num_rows] = np.arange(num_rows)
        self._run_pass(num_rows, num_rows)

    def _run_first_layers(self, num_rows: int, num_layers: int) -> None:
        """Runs the rows through the first `num_layers` layers: into `residual`, or `normed` if these are all layers."""
        if num_layers == self._config.num_layers:
            self._run_whole_pass(num_rows)
            return
        self._plan["num_layers"] = num_layers
        try:
            self._run_pass(num_rows, 0)
        finally:
            self._plan["num_layers"] = self._config.num_layers

    def _read_one(self, slot: int, token: int) -> Logits:
        """As `read`, for one token of one text: the usual call of a stream, whose time is mostly Python's."""
        start = self._table.check(slot, 1)
        if not 0 <= token < self._config.vocab_size:
            arguments.check_tokens(np.array([token]), self._config.vocab_size)
        self._memory.reserve_logits(1)
        self._memory.reserve_rows(1)
        self._memory.tokens[0], self._memory.caches[0] = token, self._addresses[slot]
        self._memory.positions[0], self._memory.outputs[0] = start, 0
        self._run_pass(1, 1)
        self._table.advance_one(slot)
        return self._memory.first_logits(1)

    def _read_ragged(self, slots: Tokens, starts: Tokens, counts: Tokens, tokens: Tokens) -> None:
        """Reads texts of `counts` tokens, one after the other in `tokens`, in passes of at most `ROWS_PER_PASS` rows.

        Logits of text i become row i.
        """
        texts = np.repeat(np.arange(len(slots)), counts)
        last_rows = np.cumsum(counts) - 1
        positions = np.arange(len(tokens)) - np.repeat(last_rows + 1 - counts, counts) + starts[texts]
        num_done = 0
        for rows in _passes(len(tokens)):
            self._write_rows(slots[texts[rows]], positions[rows], tokens[rows])
            outputs = last_rows[(last_rows >= rows.start) & (last_rows < rows.stop)] - rows.start
            self._memory.outputs[: len(outputs)] = outputs
            self._run_pass(rows.stop - rows.start, len(outputs), first_output=num_done)
            num_done += len(outputs)

    def _write_rows(self, slots: Tokens, positions: Tokens, tokens: Tokens) -> None:
        """Writes the rows of the next pass: (N,) each."""
        num_rows = len(slots)
        self._memory.reserve_rows(num_rows)
        self._memory.tokens[:num_rows] = tokens
        self._memory.caches[:num_rows] = self._addresses[slots]
        self._memory.positions[:num_rows] = positions

    def _run_pass(self, num_rows: int, num_outputs: int, first_output: int = 0) -> None:
        """Runs a pass that writes logits from row `first_output` on. An interrupt may end any earlier pass halfway."""
        self._plan["num_rows"], self._plan["num_outputs"] = num_rows, num_outputs
        self._plan["logits"] = self._memory.logits_address(first_output)
        self._team.wake()
        self._kernels(self._memory.address, at.READ)

    def _prepare_choices(self, logits: Logits, seen: Mask, config: SamplingConfig) -> None:
        """Writes the logits, the mask and the settings into the plan, unless they are those of the last call."""
        assert logits.dtype == np.float32
        assert seen.dtype == np.bool_
        assert logits.shape == seen.shape == (len(logits), self._config.vocab_size)
        self._sampled = np.empty((0, 0), np.float32)  # an interrupt below leaves nothing that looks prepared
        self._memory.reserve_choices(len(logits))
        self._plan["num_samples"] = len(logits)
        self._memory.hold("sampled_logits", logits)
        self._memory.hold("seen", seen)
        for name in (*at.SETTINGS, "top_k"):
            self._plan[name] = getattr(config, name)
        self._sampled, self._seen, self._sampling = logits, seen, config


def _passes(num_rows: int) -> Iterator[slice]:
    """The rows of each pass, at most `ROWS_PER_PASS`."""
    for first in range(0, num_rows, ROWS_PER_PASS):
        yield slice(first, min(first + ROWS_PER_PASS, num_rows))
