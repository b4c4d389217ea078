"""The CPU engine: NumPy and machine code of our own, no torch.

One text is decoded by the compiled program, a whole token a call. Prompts, and many texts at once, go through each
layer as rows of one matrix: products by BLAS, the rest compiled. Both share one cache of keys and values.

Shapes: B texts side by side, T time, V vocabulary, n rows of one pass.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyllm.config import ModelConfig
from tinyllm.generation import cpu_plan as at
from tinyllm.generation.cpu_team import Team, pick_num_threads
from tinyllm.generation.cpu_weights import Floats, Matrix, PackedWeights, padded
from tinyllm.generation.engine import Logits, Tokens
from tinyllm.generation.kernel_cache import Kernels

ROWS_PER_PASS = 512
"""Rows of a prompt that go through the layers together; more would need more memory and gain nothing."""
SHORT_PROMPT_TOKENS = 32
"""Up to here one text is read token by token: BLAS takes as long to start its threads."""
WIDENED_NUMBERS = 2**19
"""Weights that become float32 at a time, for BLAS: 2 MiB, which stay in a core's cache until they are used."""


class CpuEngine:
    """Runs a model on the CPU; see `engine.Engine`. The logits it gives are overwritten by the next call."""

    def __init__(self, config: ModelConfig, weights: PackedWeights, kernels: Kernels, num_threads: int = 0) -> None:
        """`num_threads` of 0 picks as many as help a model of this size."""
        self._config, self.weights, self._kernels = config, weights, kernels
        self._plan = np.zeros(at.NUM_FIELDS + at.TEAM_FIELDS, np.int64)
        self._held: dict[int, npt.NDArray[Any]] = {}
        self._length, self._num_slots, self._num_rows = 0, 0, 0
        self._team = Team(kernels, self._plan, num_threads or pick_num_threads(weights.numbers.nbytes))
        self._write_sizes()
        self._write_model()

    @property
    def context_length(self) -> int:
        """Tokens that it can hold."""
        return self._config.context_length

    @property
    def length(self) -> int:
        """Tokens that it holds now, in each text."""
        return self._length

    @property
    def num_threads(self) -> int:
        """Threads that decode one text."""
        return self._team.num_threads

    @property
    def description(self) -> str:
        """What computes, in a few words."""
        threads = f"{self.num_threads} thread{'s' if self.num_threads > 1 else ''}"
        return f"CPU engine, {self.weights.kind} weights, {threads}"

    def prefill(self, tokens: Tokens) -> Logits:
        """Forgets everything, reads `tokens` (B, T); logits (B, V) of what comes next."""
        batch = len(tokens)
        self._reserve_slots(batch)
        self._length = 0
        # The samples of one prompt: read once, then the cache gives it to every text.
        distinct = tokens[:1] if (tokens == tokens[:1]).all() else tokens
        if distinct.size <= SHORT_PROMPT_TOKENS and len(distinct) == 1:
            for token in distinct[0, :-1]:
                self._read_one(token, at.READ)
            logits = self._read_one(distinct[0, -1], at.DECODE)
        else:
            logits = self._read_in_passes(distinct)
        if len(distinct) == batch:
            return logits
        for cache in (self._keys, self._values):
            cache[:, 1:] = cache[:, :1]
        return np.repeat(logits, batch, axis=0)

    def decode(self, tokens: Tokens) -> Logits:
        """Reads one more token of each text (B,); logits (B, V) of what comes next."""
        assert self._length > 0, "prefill comes before decode"
        if len(tokens) > 1:
            self._read_rows(tokens[:, None])
            return self._logits(len(tokens), 1)
        return self._read_one(tokens[0], at.DECODE)

    def _read_one(self, token: np.int64, role: int) -> Logits:
        """Reads one token of one text, alone; logits (1, V) of what comes next, if the role is to compute them."""
        self._tokens[0], self._slots[0], self._positions[0] = token, 0, self._length
        self._plan[at.NUM_ROWS] = 1
        self._team.wake()
        self._run(role)
        self._length += 1
        return self._all_logits[:1]

    def _read_in_passes(self, tokens: Tokens) -> Logits:
        """Reads `tokens` (B, T), many at a time; logits (B, V) of what comes next."""
        batch, time = tokens.shape
        step = max(1, ROWS_PER_PASS // batch)
        for first in range(0, time, step):
            block = tokens[:, first : first + step]
            self._read_rows(block)
        return self._logits(batch, block.shape[1])

    def _read_rows(self, tokens: Tokens) -> None:
        """Reads `tokens` (B, T) after what the cache holds, in one pass of n = B x T rows; the stream stays behind."""
        batch, time = tokens.shape
        n = batch * time
        self._reserve_rows(n)
        self._tokens[:n] = tokens.reshape(-1)
        self._slots[:n] = np.repeat(np.arange(batch), time)
        self._positions[:n] = np.tile(np.arange(self._length, self._length + time), batch)
        self._plan[at.NUM_ROWS] = n
        self._run(at.EMBED)
        stream, added = self._stream[:n], self._added[:n]
        for layer, (qkv, output, gate_up, down) in enumerate(self.weights.layers):
            self._run(at.NORM, 2 * layer)
            self._multiply(self._normed[:n], qkv, self._qkv[:n])
            self._run(at.REMEMBER, layer)
            self._run(at.ATTEND, layer)
            self._multiply(self._mixed[:n], output, added)
            stream += added
            self._run(at.NORM, 2 * layer + 1)
            self._multiply(self._normed[:n], gate_up, self._gate_up[:n])
            self._run(at.GATE)
            self._multiply(self._gated[:n], down, added)
            stream += added
        self._length += time

    def _logits(self, batch: int, time: int) -> Logits:
        """Logits (B, V) after the last of each text's `time` rows."""
        self._stream[:batch] = self._stream[: batch * time].reshape(batch, time, -1)[:, -1]
        self._plan[at.NUM_ROWS] = batch
        self._run(at.NORM, 2 * self._config.num_layers)
        self._multiply(self._normed[:batch], self.weights.output, self._all_logits[:batch])
        return self._all_logits[:batch]

    def _multiply(self, x: Floats, matrix: Matrix, result: Floats) -> None:
        """`x` (n, columns) times the transposed `matrix`, into `result` (n, rows)."""
        if self.weights.kind == "fp32":
            end = matrix.start + matrix.num_rows * matrix.columns
            np.matmul(x, self.weights.numbers[matrix.start : end].reshape(matrix.num_rows, -1).T, out=result)
            return
        self._plan[at.WIDEN_COLUMNS] = matrix.columns
        rows_at_once = max(1, WIDENED_NUMBERS // matrix.columns)
        for first in range(0, matrix.num_rows, rows_at_once):
            last = min(first + rows_at_once, matrix.num_rows)
            self._plan[at.WIDEN_START] = matrix.start + first * matrix.columns
            self._plan[at.WIDEN_ROW], self._plan[at.WIDEN_NUM_ROWS] = matrix.row + first, last - first
            self._run(at.WIDEN)
            widened = self._widened[: (last - first) * matrix.columns].reshape(last - first, -1)
            np.matmul(x, widened.T, out=result[:, first:last])

    def _run(self, role: int, layer: int = 0) -> None:
        self._plan[at.LAYER] = layer
        self._kernels(self._plan_address, role)

    def _write_sizes(self) -> None:
        config, weights = self._config, self.weights
        self._plan_address = self._plan.ctypes.data
        layer = weights.layers[0]
        following = weights.layers[1][0] if config.num_layers > 1 else weights.output
        sizes = {
            at.NUM_LAYERS: config.num_layers,
            at.NUM_HEADS: config.num_heads,
            at.NUM_KV_HEADS: config.num_kv_heads,
            at.HEAD_SIZE: config.head_size,
            at.HIDDEN_SIZE: config.hidden_size,
            at.HIDDEN_COLUMNS: padded(config.hidden_size),
            at.INTERMEDIATE_SIZE: config.intermediate_size,
            at.INTERMEDIATE_COLUMNS: padded(config.intermediate_size),
            at.VOCAB_SIZE: config.vocab_size,
            at.NUM_POSITIONS: padded(config.context_length),
            at.LAYER_NUMBERS: following.start - layer[0].start,
            at.LAYER_ROWS: following.row - layer[0].row,
            at.OUTPUT_START: weights.output.start,
            at.OUTPUT_ROW: weights.output.row,
            at.EMBEDDING_START: weights.embedding.start,
            at.EMBEDDING_ROW: weights.embedding.row,
        }
        for place, value in sizes.items():
            self._plan[place] = value

    def _write_model(self) -> None:
        config, weights = self._config, self.weights
        frequencies = 1.0 / config.rope_theta ** (
            np.arange(0, config.head_size, 2, dtype=np.float32) / config.head_size
        )
        angles = np.outer(np.arange(config.context_length, dtype=np.float32), frequencies.astype(np.float32))
        longest = max(padded(config.hidden_size), padded(config.intermediate_size))
        packed = np.zeros(longest, np.int16 if weights.kind == "int8" else np.float32)
        self._widened = np.zeros(max(WIDENED_NUMBERS, longest) if weights.kind != "fp32" else 0, np.float32)
        scores = np.zeros((self._plan[at.NUM_CHUNKS], self._plan[at.NUM_POSITIONS]), np.float32)
        arrays: dict[int, npt.NDArray[Any]] = {
            at.WEIGHTS: weights.numbers,
            at.SCALES: weights.scales,
            at.GAINS: weights.gains,
            at.NORM_EPS: np.array([config.norm_eps], np.float32),
            at.COSINES: np.cos(angles),
            at.SINES: np.sin(angles),
            at.PACKED: packed,
            at.PACKED_SCALE: np.ones(1, np.float32),
            at.SCORES: scores,
            at.WIDENED: self._widened,
        }
        for place, array in arrays.items():
            self._hold(place, array)

    def _reserve_slots(self, num_slots: int) -> None:
        """Makes room for `num_slots` texts in the cache and the logits."""
        if num_slots == self._num_slots:
            return
        config = self._config
        shape = (config.num_layers, num_slots, config.num_kv_heads * config.head_size, padded(config.context_length))
        self._keys, self._values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._all_logits = np.zeros((num_slots, config.vocab_size), np.float32)
        self._hold(at.KEYS, self._keys)
        self._hold(at.VALUES, self._values)
        self._hold(at.LOGITS, self._all_logits)
        self._num_slots = self._plan[at.NUM_SLOTS] = num_slots
        self._reserve_rows(num_slots)

    def _reserve_rows(self, num_rows: int) -> None:
        """Makes room for `num_rows` rows of activations in one pass."""
        if num_rows <= self._num_rows:
            return
        config = self._config
        hidden, inner = padded(config.hidden_size), padded(config.intermediate_size)
        num_qkv = (config.num_heads + 2 * config.num_kv_heads) * config.head_size
        self._tokens, self._slots, self._positions = (np.zeros(num_rows, np.int64) for _ in range(3))
        widths = (config.hidden_size, config.hidden_size, hidden, num_qkv, hidden, 2 * config.intermediate_size, inner)
        buffers = [np.zeros((num_rows, width), np.float32) for width in widths]
        self._added, self._stream, self._normed, self._qkv, self._mixed, self._gate_up, self._gated = buffers
        places = (at.STREAM, at.NORMED, at.QKV, at.MIXED, at.GATE_UP, at.GATED, at.TOKENS, at.SLOTS, at.POSITIONS)
        arrays: list[npt.NDArray[Any]] = [*buffers[1:], self._tokens, self._slots, self._positions]
        for place, array in zip(places, arrays, strict=True):
            self._hold(place, array)
        self._num_rows = num_rows

    def _hold(self, place: int, array: npt.NDArray[Any]) -> None:
        """Writes the address of `array` into the plan, and keeps the array alive as long as it stands there."""
        assert array.flags.c_contiguous, "the compiled program reads memory in order"
        self._held[place] = array
        self._plan[place] = array.ctypes.data
