"""Memory of the CPU engine's compiled program: the plan, and the arrays whose addresses it has.

The arrays of rows and choices grow with the largest call. This module does not run the program.

Shapes: N rows of one pass, R texts that sample, V vocabulary.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyllm.config import ModelConfig
from tinyllm.generation.engines.protocol import Doubles, Logits, Tokens
from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode.blocks import MAX_TILE_INPUTS
from tinyllm.kernels.decode.weights import PackedWeights, aligned_zeros, padded
from tinyllm.model.rope_scaling import scale_frequencies


class ProgramMemory:
    """The plan of one model and its arrays; the program's caller fills `tokens`, `caches`, `positions`, `outputs`."""

    def __init__(self, config: ModelConfig) -> None:
        """A plan with the sizes of the model, without memory."""
        self._config = config
        self.plan = at.new_plan()
        self.address = self.plan.ctypes.data
        self.held: dict[str, npt.NDArray[Any]] = {}
        """The arrays by their fields of the plan."""
        self.tokens, self.caches, self.positions, self.outputs = (np.empty(0, np.int64) for _ in range(4))
        """Tokens, addresses of slots and positions (N,) of a pass, and the rows whose logits are computed."""
        self.logits: Logits = np.empty((0, config.vocab_size), np.float32)
        self.uniforms: Doubles = np.empty(0)
        self.chosen: Tokens = np.empty(0, np.int64)
        """The tokens (R,) of the last choice."""
        self.chosen_logits, self.normalizers = np.empty(0), np.empty(0)
        """Their logits (R,) below the largest, and the normalizers (R,) of their log-probabilities."""
        self._first_logits = self.logits
        self._logits_address = 0
        self._num_logits, self._num_rows, self._num_samples = 0, 0, 0
        """Room in the arrays. 0 while they grow: after an interrupt, the next call grows them again."""
        self._packed_type: npt.DTypeLike = np.float32
        self._write_sizes()

    def _write_sizes(self) -> None:
        config = self._config
        sizes = {
            "num_layers": config.num_layers,
            "num_heads": config.num_heads,
            "num_kv_heads": config.num_kv_heads,
            "head_size": config.head_size,
            "hidden_size": config.hidden_size,
            "hidden_columns": padded(config.hidden_size),
            "attention_columns": padded(config.attention_size),
            "intermediate_size": config.intermediate_size,
            "intermediate_columns": padded(config.intermediate_size),
            "vocab_size": config.vocab_size,
            "vocab_columns": padded(config.vocab_size),
            "num_positions": padded(config.context_length),
            "slot_keys": config.num_layers * config.num_kv_heads * config.head_size * padded(config.context_length),
        }
        for field, value in sizes.items():
            self.plan[field] = value
        self.plan["norm_eps"] = config.norm_eps

    def write_model(self, weights: PackedWeights) -> None:
        """Writes the addresses of `weights`, rotary angles and scratch memory. The team has set `num_chunks`."""
        config, num_chunks = self._config, int(self.plan["num_chunks"])
        frequencies = 1.0 / config.rope_theta ** (
            np.arange(0, config.head_size, 2, dtype=np.float32) / config.head_size
        )
        scaled = scale_frequencies(frequencies.astype(np.float32), config)
        angles = np.outer(np.arange(config.context_length, dtype=np.float32), scaled)
        tile_scores = MAX_TILE_INPUTS * padded(config.context_length)
        arrays: dict[str, npt.NDArray[Any]] = {
            "weights": weights.numbers,
            "matrices": weights.matrices,
            "scales": weights.scales,
            "gains": weights.gains,
            "cosines": np.cos(angles),
            "sines": np.sin(angles),
            "scores": aligned_zeros((num_chunks, tile_scores), np.float32),
        }
        if weights.biases is not None:
            arrays["biases"] = weights.biases
        self._packed_type = np.int16 if weights.kind == "int8" else np.float32
        for field, array in arrays.items():
            self.hold(field, array)

    def reserve_logits(self, num_rows: int) -> None:
        """Makes room for `num_rows` rows of logits, read-only outside: the next pass overwrites them."""
        if num_rows <= self._num_logits:
            return
        self._num_logits = 0
        logits = np.zeros((num_rows, self._config.vocab_size), np.float32)
        self.logits = logits.view()
        self.logits.flags.writeable = False
        self._first_logits = self.logits
        self._logits_address = logits.ctypes.data
        self.hold("logits", logits)
        self._num_logits = num_rows

    def logits_address(self, row: int) -> int:
        """The address of a row of the logits."""
        return self._logits_address + row * self._config.vocab_size * self.logits.itemsize

    def first_logits(self, num_rows: int) -> Logits:
        """The logits (`num_rows`, V): the same array for the same number of rows, so that `choose` can tell."""
        if len(self._first_logits) != num_rows:
            self._first_logits = self.logits[:num_rows]
        return self._first_logits

    def reserve_rows(self, num_rows: int) -> None:
        """Makes room for `num_rows` rows of activations in one pass."""
        if num_rows <= self._num_rows:
            return
        self._num_rows = 0
        config = self._config
        hidden, inner = padded(config.hidden_size), padded(config.intermediate_size)
        attention = padded(config.attention_size)
        num_qkv = (config.num_heads + 2 * config.num_kv_heads) * config.head_size
        self.tokens, self.caches, self.positions, self.outputs = (np.zeros(num_rows, np.int64) for _ in range(4))
        widths = {
            "residual": config.hidden_size,
            "normed": hidden,
            "qkv": num_qkv,
            "attended": attention,
            "gate_up": 2 * config.intermediate_size,
            "gated": inner,
            "packed_scales": 1,
        }
        for field, width in widths.items():
            self.hold(field, aligned_zeros((num_rows, width), np.float32))
        self.hold("packed", aligned_zeros((num_rows, max(hidden, attention, inner)), self._packed_type))
        self.hold("tokens", self.tokens)
        self.hold("caches", self.caches)
        self.hold("positions", self.positions)
        self.hold("output_rows", self.outputs)
        self._num_rows = num_rows

    def reserve_choices(self, num_samples: int) -> None:
        """Makes room to choose `num_samples` tokens at once."""
        if num_samples <= self._num_samples:
            return
        self._num_samples = 0
        num_chunks, columns = int(self.plan["num_chunks"]), int(self.plan["vocab_columns"])
        self.uniforms, self.chosen_logits, self.normalizers = (np.zeros(num_samples) for _ in range(3))
        self.chosen = np.zeros(num_samples, np.int64)
        arrays: dict[str, npt.NDArray[Any]] = {
            "uniforms": self.uniforms,
            "chosen": self.chosen,
            "chosen_logits": self.chosen_logits,
            "normalizers": self.normalizers,
            "weighed": aligned_zeros((num_chunks, columns), np.float32),
        }
        for field, array in arrays.items():
            self.hold(field, array)
        self._num_samples = num_samples

    def hold(self, field: str, array: npt.NDArray[Any]) -> None:
        """Writes the address of `array` into the plan, and keeps the array alive until the field changes."""
        assert array.flags.c_contiguous, "the compiled program reads memory in order"
        self.held[field] = array
        self.plan[field] = array.ctypes.data
