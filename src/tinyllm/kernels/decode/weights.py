"""Weights as the CPU engine reads them: all matrices in one block of memory, in the order in which a token needs them.

Fused on the way: Q, K and V are one matrix, gate and up are neighbours. Columns are filled up with zeros to whole
blocks. fp32 keeps numbers as they are, bf16 keeps the upper half of each, int8 keeps whole numbers up to 127 and one
scale a row.

Shapes: V vocabulary, D model size, I intermediate size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyllm.config import ModelConfig, WeightsKind
from tinyllm.kernels.decode.blocks import CACHE_LINE_BYTES, COLUMN_BLOCK
from tinyllm.model.size import EMBEDDING, OUTPUT

Floats = npt.NDArray[np.float32]

LARGEST_INT8 = 127
_NUMBERS: dict[str, npt.DTypeLike] = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8}
_LAYER_MATRICES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
_NORMS = ("input_layernorm", "post_attention_layernorm")


def padded(columns: int, block: int = COLUMN_BLOCK) -> int:
    """The smallest multiple of `block` that holds `columns`."""
    return -(-columns // block) * block


def aligned_zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """As `np.zeros`, aligned to a cache line: a vector across two lines takes two reads."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE_BYTES, np.uint8)
    first = -memory.ctypes.data % CACHE_LINE_BYTES
    return memory[first : first + size].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Matrix:
    """The position of one matrix inside the weights."""

    start: int
    """Index of its first number."""
    row: int
    """Index of its first scale."""
    num_rows: int
    columns: int
    """Numbers in a row, with the padding."""


class PackedWeights:
    """All weights of a model in the layout of the compiled program."""

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Floats], kind: WeightsKind) -> None:
        """Copies `tensors`, which have Hugging Face's names, into numbers of `kind`."""
        self.kind = kind
        hidden, inner = padded(config.hidden_size), padded(config.intermediate_size)
        num_qkv = (config.num_heads + 2 * config.num_kv_heads) * config.head_size
        output = (config.hidden_size, padded(config.attention_size))
        layer = [(num_qkv, hidden), output, (2 * config.intermediate_size, hidden), (config.hidden_size, inner)]
        vocabulary = [(config.vocab_size, hidden)] * (1 if config.tie_embeddings else 2)
        matrices = _lay_out([*layer * config.num_layers, *vocabulary])
        self.layers = [matrices[4 * i : 4 * i + 4] for i in range(config.num_layers)]
        """QKV, output, gate and up, down of each layer."""
        self.output, self.embedding = matrices[4 * config.num_layers], matrices[-1]
        num_rows = matrices[-1].row + matrices[-1].num_rows
        self.numbers = aligned_zeros(matrices[-1].start + matrices[-1].num_rows * matrices[-1].columns, _NUMBERS[kind])
        self.scales = np.ones(num_rows, np.float32)
        self.biases = np.zeros(num_rows, np.float32) if config.attention_bias or config.mlp_bias else None
        """One for each matrix row, as the scales; None if the model has none."""
        gains = [f"model.layers.{i}.{name}" for i in range(config.num_layers) for name in _NORMS]
        self.gains = np.stack([tensors[f"{name}.weight"] for name in [*gains, "model.norm"]]).astype(np.float32)
        """Two norms a layer, and the last: (2 x layers + 1, D)."""
        self._fill(tensors, [OUTPUT, EMBEDDING] if not config.tie_embeddings else [EMBEDDING])

    def _fill(self, tensors: Mapping[str, Floats], vocabulary: list[str]) -> None:
        """Copies the matrices of all layers, then those of `vocabulary`, and their biases, in the order of memory."""
        layers = [f"model.layers.{i}.{name}.weight" for i in range(len(self.layers)) for name in _LAYER_MATRICES]
        row = start = 0
        for name in [*layers, *vocabulary]:
            tensor = tensors[name]  # each look-up reads it from the disk
            num_rows, columns = tensor.shape
            rows, end = slice(row, row + num_rows), start + num_rows * padded(columns)
            place = self.numbers[start:end].reshape(num_rows, -1)[:, :columns]
            if self.kind == "int8":
                place[:], self.scales[rows] = quantize_rows(tensor)
            else:
                place[:] = round_to_bfloat16(tensor) if self.kind == "bf16" else tensor
            bias = name.removesuffix("weight") + "bias"
            if self.biases is not None and bias in tensors:
                self.biases[rows] = tensors[bias]
            row, start = rows.stop, end


def quantize_rows(tensor: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """`tensor` (rows, columns) as int8, and the scale of each row (rows,), which maps its largest number to 127."""
    scales = np.abs(tensor).max(axis=1) / np.float32(LARGEST_INT8)
    scales[scales == 0] = 1
    return np.rint(tensor / scales[:, None]).astype(np.int8), scales


def round_to_bfloat16(tensor: Floats) -> npt.NDArray[np.uint16]:
    """The upper 16 bits of each number, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(tensor, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _lay_out(shapes: list[tuple[int, int]]) -> list[Matrix]:
    """Matrices of these (rows, columns), one after the other."""
    matrices, start, row = [], 0, 0
    for num_rows, columns in shapes:
        matrices.append(Matrix(start, row, num_rows, columns))
        start, row = start + num_rows * columns, row + num_rows
    return matrices
