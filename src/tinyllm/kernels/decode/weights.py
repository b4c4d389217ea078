"""Weights as the CPU engine reads them: all matrices in one block of memory, in the order in which a token needs them.

Q, K and V are one matrix, gate and up another. Columns are padded with zeros to whole blocks. fp32 keeps numbers as
they are, bf16 keeps the upper half of each, int8 keeps whole numbers up to 127 and one scale a row.

Shapes: L layers, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyllm.config import ModelConfig, WeightsKind
from tinyllm.kernels.decode.blocks import CACHE_LINE_BYTES, COLUMN_BLOCK
from tinyllm.kernels.decode.plan import MATRIX
from tinyllm.model.size import parameter_shapes

Floats = npt.NDArray[np.float32]

LARGEST_INT8 = 127
_NUMBERS: dict[str, npt.DTypeLike] = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8}
_FUSED = ("k_proj.weight", "v_proj.weight", "up_proj.weight")
"""Names of matrices whose rows extend the matrix before them."""


def padded(columns: int, block: int = COLUMN_BLOCK) -> int:
    """The smallest multiple of `block` that holds `columns`."""
    return -(-columns // block) * block


def aligned_zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """As `np.zeros`, aligned to a cache line: a vector across two lines takes two reads."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE_BYTES, np.uint8)
    first = -memory.ctypes.data % CACHE_LINE_BYTES
    return memory[first : first + size].view(dtype).reshape(shape)


class PackedWeights:
    """All weights of a model in the layout of the compiled program."""

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Floats], kind: WeightsKind) -> None:
        """Copies `tensors`, which have Hugging Face's names, into numbers of `kind`."""
        self.kind = kind
        shapes = parameter_shapes(config)
        matrices = {name: (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}
        size = sum(num_rows * padded(columns) for num_rows, columns in matrices.values())
        num_rows = sum(num_rows for num_rows, _ in matrices.values())
        self.numbers = aligned_zeros(size, _NUMBERS[kind])
        self.scales = np.ones(num_rows, np.float32)
        self.biases = np.zeros(num_rows, np.float32) if config.attention_bias or config.mlp_bias else None
        """One for each matrix row, as the scales; None if the model has none."""
        layout = self._fill(tensors, matrices)
        self.matrices = np.array([*layout, layout[0]] if config.tie_embeddings else layout, MATRIX)
        """The embedding; QKV, output, gate and up, down of each layer; the output matrix: (4 L + 2,) of `MATRIX`."""
        self.gains = np.stack([tensors[name] for name in shapes if name.endswith("norm.weight")]).astype(np.float32)
        """Two norms a layer, and the last: (2 L + 1, D)."""

    def _fill(
        self, tensors: Mapping[str, Floats], matrices: Mapping[str, tuple[int, int]]
    ) -> list[tuple[int, int, int, int]]:
        """Copies matrices, named with their rows and columns, and their biases; returns the fields of `MATRIX`."""
        layout: list[tuple[int, int, int, int]] = []
        row = start = 0
        for name, (num_rows, columns) in matrices.items():
            rows, end = slice(row, row + num_rows), start + num_rows * padded(columns)
            tensor, place = tensors[name], self.numbers[start:end].reshape(num_rows, -1)[:, :columns]
            if self.kind == "int8":
                place[:], self.scales[rows] = quantize_rows(tensor)
            else:
                place[:] = round_to_bfloat16(tensor) if self.kind == "bf16" else tensor
            bias = name.removesuffix("weight") + "bias"
            if self.biases is not None and bias in tensors:
                self.biases[rows] = tensors[bias]
            first, first_row = (start, row) if not name.endswith(_FUSED) else layout.pop()[:2]
            layout.append((first, first_row, rows.stop - first_row, padded(columns)))
            row, start = rows.stop, end
        return layout


def quantize_rows(tensor: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """`tensor` (rows, columns) as int8, and the scale of each row (rows,), which maps its largest number to 127."""
    scales = np.abs(tensor).max(axis=1) / np.float32(LARGEST_INT8)
    scales[scales == 0] = 1
    return np.rint(tensor / scales[:, None]).astype(np.int8), scales


def round_to_bfloat16(tensor: Floats) -> npt.NDArray[np.uint16]:
    """The upper 16 bits of each number, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(tensor, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
