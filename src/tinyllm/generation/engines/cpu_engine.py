"""The CPU engine: NumPy and machine code of our own, no torch and no BLAS.

The compiled program takes rows through the whole model in one call: the one token of one text, the next tokens of many
texts, or the tokens of a prompt. This module gives it memory, and keeps count of what the cache holds.

Shapes: B texts side by side, T time, V vocabulary, n rows of one pass.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyllm.config import ModelConfig, SamplingConfig
from tinyllm.generation import sampling
from tinyllm.generation.engines.protocol import Doubles, Logits, Mask, Tokens
from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode.blocks import HEAD_VECTOR_BLOCK, LANES, MAX_TILE_ROWS, TILE_NUMBERS
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.team import Team, pick_num_threads
from tinyllm.kernels.decode.weights import PackedWeights, aligned_zeros, padded
from tinyllm.machine.memory import available_memory_bytes

ROWS_PER_PASS = 256
"""Rows of a prompt that go through the layers together; more would need more memory and gain nothing."""


@dataclass(frozen=True)
class _Cache:
    """Keys and values of some texts, as the compiled program reads them, and how many tokens of each are read."""

    keys: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]
    length: int


class CpuEngine:
    """Runs a model on the CPU; see `engine.Engine`.

    The logits it gives are not to be written to; the next call overwrites them. One thread at a time may call it.
    """

    def __init__(self, config: ModelConfig, weights: PackedWeights, kernels: Kernels, num_threads: int = 0) -> None:
        """`num_threads` of 0 picks as many as help a model of this size."""
        self._config, self.weights, self._kernels = config, weights, kernels
        self._plan = at.new_plan()
        self._held: dict[str, npt.NDArray[Any]] = {}
        self._num_rows = 0
        self._all_logits: Logits = np.empty((0, config.vocab_size), np.float32)
        self._sampling: SamplingConfig | None = None
        self._sampled, self._seen = np.empty((0, 0), np.float32), np.empty((0, 0), np.bool_)
        self._team = Team(kernels, self._plan, num_threads or pick_num_threads(weights.numbers.nbytes))
        self._drop_cache()
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

    def release_cache(self) -> _Cache:
        """The cache with what was read, moved out of the engine, which then holds nothing."""
        cache = _Cache(self._keys, self._values, self._length)
        self._drop_cache()
        return cache

    def restore_cache(self, cache: object) -> None:
        """Puts a cache back that `release_cache` gave; the one in the engine is dropped."""
        assert isinstance(cache, _Cache)
        self._hold_cache(cache.keys, cache.values)
        self._length = cache.length

    def missing_bytes(self, num_texts: int, num_positions: int) -> int:
        """Bytes of memory needed beyond those held, for so many texts of so many tokens each.

        Only the pages of one text's cache that are written take memory; several texts share a prompt by copying all.
        """
        config = self._config
        positions = config.context_length if num_texts > 1 else min(num_positions, config.context_length)
        cache = 2 * config.num_layers * num_texts * config.num_kv_heads * config.head_size * padded(positions)
        # For each text: logits in the engine and a copy of the first ones, activations of one row, sums over blocks.
        row = 3 * config.vocab_size + 8 * padded(config.hidden_size) + 4 * padded(config.intermediate_size)
        held = self._keys.nbytes + self._values.nbytes if self._num_slots > 1 else 0
        return max(0, 4 * (cache + num_texts * row) - held)

    def available_bytes(self) -> int | None:
        """Bytes of memory that this process can still have; None where the system does not say."""
        return available_memory_bytes()

    def prefill(self, tokens: Tokens) -> Logits:
        """Forgets everything, reads `tokens` (B, T); logits (B, V) of what comes next."""
        batch = len(tokens)
        self._reserve_slots(batch)
        self._length = 0
        # The samples of one prompt: read once, then the cache gives it to every text.
        distinct = tokens[:1] if (tokens == tokens[:1]).all() else tokens
        step = max(1, ROWS_PER_PASS // len(distinct))
        for first in range(0, tokens.shape[1], step):
            last = first + step
            logits = self._read(distinct[:, first:last], with_logits=last >= tokens.shape[1])
        if len(distinct) == batch:
            return logits
        for cache in (self._keys, self._values):
            cache[:, 1:] = cache[:, :1]
        return np.repeat(logits, batch, axis=0)

    def decode(self, tokens: Tokens) -> Logits:
        """Reads one more token of each text (B,); logits (B, V) of what comes next."""
        assert self._length > 0, "prefill comes before decode"
        return self._read(tokens[:, None])

    def choose(self, logits: Logits, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> tuple[Tokens, Doubles]:
        """The next token of each row of `logits` (B, V), and its log-probability (B,)."""
        if logits is not self._sampled or seen is not self._seen or config is not self._sampling:
            self._prepare_choices(logits, seen, config)
        self._uniforms[:] = uniforms
        self._kernels(self._plan_address, at.SAMPLE)
        if self._plan["not_finite"]:
            self._plan["not_finite"] = 0
            raise sampling.not_finite()
        return self._chosen.copy(), self._chosen_logits - np.log(self._normalizers)

    def _read(self, tokens: Tokens, with_logits: bool = True) -> Logits:
        """Reads `tokens` (B, T) after what the cache holds, as n = B x T rows; logits (B, V), unless not wanted."""
        batch, time = tokens.shape
        n = batch * time
        self._reserve_rows(n)
        self._tokens[:n] = tokens.reshape(-1)
        if n == 1:
            self._slots[0], self._positions[0], self._outputs[0] = 0, self._length, 0
        else:
            self._slots[:n] = np.repeat(np.arange(batch), time)
            self._positions[:n] = np.tile(np.arange(self._length, self._length + time), batch)
            self._outputs[:batch] = np.arange(time - 1, n, time)
        self._plan["num_rows"], self._plan["num_outputs"] = n, batch if with_logits else 0
        self._team.wake()
        self._kernels(self._plan_address, at.READ)
        self._length += time
        return self._all_logits if batch == self._num_slots else self._all_logits[:batch]

    def _write_sizes(self) -> None:
        config, weights = self._config, self.weights
        self._plan_address = self._plan.ctypes.data
        layer = weights.layers[0]
        following = weights.layers[1][0] if config.num_layers > 1 else weights.output
        sizes = {
            "num_layers": config.num_layers,
            "num_heads": config.num_heads,
            "num_kv_heads": config.num_kv_heads,
            "head_size": config.head_size,
            "hidden_size": config.hidden_size,
            "hidden_columns": padded(config.hidden_size),
            "intermediate_size": config.intermediate_size,
            "intermediate_columns": padded(config.intermediate_size),
            "vocab_size": config.vocab_size,
            "vocab_columns": padded(config.vocab_size),
            "num_positions": padded(config.context_length),
            "head_vectors": padded(config.head_size, HEAD_VECTOR_BLOCK),
            "layer_weights": following.start - layer[0].start,
            "layer_rows": following.row - layer[0].row,
            "output_start": weights.output.start,
            "output_row": weights.output.row,
            "embedding_start": weights.embedding.start,
            "embedding_row": weights.embedding.row,
        }
        for field, value in sizes.items():
            self._plan[field] = value
        self._plan["norm_eps"] = config.norm_eps

    def _write_model(self) -> None:
        config, weights = self._config, self.weights
        frequencies = 1.0 / config.rope_theta ** (
            np.arange(0, config.head_size, 2, dtype=np.float32) / config.head_size
        )
        angles = np.outer(np.arange(config.context_length, dtype=np.float32), frequencies.astype(np.float32))
        longest = max(padded(config.hidden_size), padded(config.intermediate_size))
        self._plan["tile_stride"] = TILE_NUMBERS + MAX_TILE_ROWS * longest
        tiles = aligned_zeros((int(self._plan["num_chunks"]), int(self._plan["tile_stride"])), np.float32)
        scores = aligned_zeros((int(self._plan["num_chunks"]), int(self._plan["num_positions"])), np.float32)
        num_vectors = int(self._plan["head_vectors"])
        head_sums = aligned_zeros((int(self._plan["num_chunks"]), num_vectors, LANES), np.float32)
        arrays: dict[str, npt.NDArray[Any]] = {
            "weights": weights.numbers,
            "scales": weights.scales,
            "gains": weights.gains,
            "cosines": np.cos(angles),
            "sines": np.sin(angles),
            "scores": scores,
            "head_sums": head_sums,
            "tiles": tiles,
        }
        for field, array in arrays.items():
            self._hold(field, array)

    def _reserve_slots(self, num_slots: int) -> None:
        """Makes room for `num_slots` texts in the cache and the logits. Raises MemoryError."""
        if num_slots == self._num_slots:
            return
        self._drop_cache()
        config = self._config
        shape = (config.num_layers, num_slots, config.num_kv_heads * config.head_size, padded(config.context_length))
        self._hold_cache(aligned_zeros(shape, np.float32), aligned_zeros(shape, np.float32))

    def _hold_cache(self, keys: npt.NDArray[np.float32], values: npt.NDArray[np.float32]) -> None:
        """Takes these as the cache, and makes room for the logits and rows of as many texts."""
        self._keys, self._values = keys, values
        self._hold("keys", keys)
        self._hold("values", values)
        num_slots = keys.shape[1]
        self._reserve_logits(num_slots)
        self._reserve_rows(num_slots)
        self._num_slots = self._plan["num_slots"] = num_slots

    def _drop_cache(self) -> None:
        """Lets go of the cache; `_reserve_slots` or `_hold_cache` comes before the next pass."""
        self._keys = self._values = np.empty((0, 0, 0, 0), np.float32)
        for field in ("keys", "values"):
            self._held.pop(field, None)
            self._plan[field] = 0
        self._length, self._num_slots = 0, 0

    def _reserve_logits(self, num_rows: int) -> None:
        """Makes room for `num_rows` rows of logits, read-only outside: the next pass overwrites them."""
        if num_rows == len(self._all_logits):
            return
        logits = np.zeros((num_rows, self._config.vocab_size), np.float32)
        self._all_logits = logits.view()
        self._all_logits.flags.writeable = False
        self._hold("logits", logits)

    def _prepare_choices(self, logits: Logits, seen: Mask, config: SamplingConfig) -> None:
        """Writes into the plan from what tokens are chosen; while that stays the same, it need not be done again."""
        assert logits.dtype == np.float32
        assert seen.dtype == np.bool_
        assert logits.shape == seen.shape == (len(logits), self._config.vocab_size)
        self._reserve_choices(len(logits))
        self._hold("sampled_logits", logits)
        self._hold("seen", seen)
        for name in (*at.SETTINGS, "top_k"):
            self._plan[name] = getattr(config, name)
        self._sampled, self._seen, self._sampling = logits, seen, config

    def _reserve_choices(self, num_samples: int) -> None:
        """Makes room for the choice of so many tokens at once."""
        if num_samples == self._plan["num_samples"]:
            return
        num_chunks, columns = int(self._plan["num_chunks"]), int(self._plan["vocab_columns"])
        self._uniforms, self._chosen_logits, self._normalizers = (np.zeros(num_samples) for _ in range(3))
        self._chosen = np.zeros(num_samples, np.int64)
        arrays: dict[str, npt.NDArray[Any]] = {
            "uniforms": self._uniforms,
            "chosen": self._chosen,
            "chosen_logits": self._chosen_logits,
            "normalizers": self._normalizers,
            "weighed": aligned_zeros((num_chunks, columns), np.float32),
        }
        for field, array in arrays.items():
            self._hold(field, array)
        self._plan["num_samples"] = num_samples

    def _reserve_rows(self, num_rows: int) -> None:
        """Makes room for `num_rows` rows of activations in one pass."""
        if num_rows <= self._num_rows:
            return
        config = self._config
        hidden, inner = padded(config.hidden_size), padded(config.intermediate_size)
        num_qkv = (config.num_heads + 2 * config.num_kv_heads) * config.head_size
        self._tokens, self._slots, self._positions, self._outputs = (np.zeros(num_rows, np.int64) for _ in range(4))
        widths = {
            "residual": config.hidden_size,
            "normed": hidden,
            "qkv": num_qkv,
            "attended": hidden,
            "gate_up": 2 * config.intermediate_size,
            "gated": inner,
            "packed_scales": 1,
        }
        for field, width in widths.items():
            self._hold(field, aligned_zeros((num_rows, width), np.float32))
        self._hold("transposed", aligned_zeros((padded(num_rows), max(hidden, inner)), np.float32))
        packed = np.int16 if self.weights.kind == "int8" else np.float32
        self._hold("packed", aligned_zeros((num_rows, max(hidden, inner)), packed))
        fields = ("tokens", "slots", "positions", "output_rows")
        for field, array in zip(fields, (self._tokens, self._slots, self._positions, self._outputs), strict=True):
            self._hold(field, array)
        self._num_rows = num_rows

    def _hold(self, field: str, array: npt.NDArray[Any]) -> None:
        """Writes the address of `array` into the plan, and keeps the array alive as long as it stands there."""
        assert array.flags.c_contiguous, "the compiled program reads memory in order"
        self._held[field] = array
        self._plan[field] = array.ctypes.data
