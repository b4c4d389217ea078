"""Tests safetensors files of the library's writer, and that each damaged field is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tinyllm.errors import FormatError
from tinyllm.safetensors_file import SafetensorsFile


def write(path: Path, header: Any, data: bytes) -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + data)
    return path


def entry(shape: Any = (4,), offsets: Any = (0, 16), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_float_type_is_converted_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    save_file({"b": values, "a": values[0].clone()}, tmp_path / "m.safetensors", metadata={"format": "pt"})
    tensors = SafetensorsFile(tmp_path / "m.safetensors")
    assert tensors.types == {{torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]}
    assert set(tensors) == {"a", "b"}
    np.testing.assert_array_equal(tensors["b"], values.float().numpy())
    assert tensors["a"].dtype == np.float32


REFUSED: dict[str, tuple[Any, str]] = {
    "not an object": ([1], "the header of .* holds a list"),
    "no JSON": (b"{{{", "the header of .* is not valid JSON"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [4]}}, "a has no dtype, shape and data_offsets"),
    "dtype": ({"a": entry(dtype="I64", shape=(2,))}, "a has the dtype 'I64', expected F64, F32, F16, BF16"),
    "dtype of a kind": ({"a": entry(dtype=["F32"])}, "a has the dtype"),
    "negative": ({"a": entry(shape=(-4,))}, r"a has the shape \[-4\]"),
    "zero": ({"a": entry(shape=(0, 4), offsets=(0, 0))}, r"a has the shape \[0, 4\]"),
    "fraction": ({"a": entry(shape=(4.0,))}, r"a has the shape \[4.0\]"),
    "huge": ({"a": entry(shape=(2**62, 2**62))}, r"a has 16 bytes, expected \d+ for"),
    "backwards": ({"a": entry(offsets=(16, 0))}, "a has -16 bytes"),
    "three offsets": ({"a": entry(offsets=(0, 8, 16))}, "expected two whole numbers"),
    "gap": ({"a": entry(shape=(2,), offsets=(8, 16))}, "a begins at byte 8 of the data, expected 0"),
    "overlap": ({"a": entry(), "b": entry(shape=(2,), offsets=(8, 16))}, "b begins at byte 8 of the data, expected 16"),
    "beyond the end": ({"a": entry(shape=(8,), offsets=(0, 32))}, "its tensors end at byte 32, its data at 16"),
    "more data": ({"a": entry(shape=(2,), offsets=(0, 8))}, "its tensors end at byte 8, its data at 16"),
    "line break": ({"a\nb": entry()}, r"the name 'a\\nb', expected printable"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_damaged_header_is_named(case: str, tmp_path: Path) -> None:
    header, message = REFUSED[case]
    with pytest.raises(FormatError, match=message):
        SafetensorsFile(write(tmp_path / "m.safetensors", header, bytes(16)))


@pytest.mark.parametrize("content", [b"\x01\x00", (2**63).to_bytes(8, "little"), (3).to_bytes(8, "little") + b"{}"])
def test_the_header_length_is_checked_against_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=r"the header's length is \d+, expected at most"):
        SafetensorsFile(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; copy or download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "fetch them: git lfs pull"),
    ],
)
def test_a_file_without_its_content_says_how_to_get_it(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        SafetensorsFile(tmp_path / "m.safetensors")


def test_a_file_that_becomes_shorter_is_named(tmp_path: Path) -> None:
    tensors = SafetensorsFile(write(tmp_path / "m.safetensors", {"a": entry()}, bytes(16)))
    with tensors.path.open("r+b") as file:
        file.truncate(tensors.path.stat().st_size - 1)
    with pytest.raises(FormatError, match="became shorter while it was read; a is incomplete"):
        tensors["a"]
