"""Tests the GGUF container: every value type is read back, and each damaged field is refused."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest

from tinyllm.errors import FormatError
from tinyllm.exchange.gguf_blocks import TensorType
from tinyllm.exchange.gguf_file import ALIGNMENT, Contents, ValueType, read_contents, read_tensor
from tinyllm.exchange.gguf_writer import write_contents

PATH = Path("model.gguf")
HEADER = struct.Struct("<4sIQQ")
Metadata = dict[str, tuple[ValueType, object]]


def written(metadata: Metadata, **tensors: np.ndarray) -> bytes:
    file = io.BytesIO()
    write_contents(file, metadata, [(name, values, TensorType.F32) for name, values in tensors.items()])
    return file.getvalue()


def read(content: bytes) -> Contents:
    return read_contents(io.BytesIO(content), PATH)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def with_value(type: int, value: bytes) -> bytes:
    """A file without tensors and with one value under the key `key`."""
    return HEADER.pack(b"GGUF", 3, 0, 1) + string(b"key") + struct.pack("<I", type) + value


def with_tensor(*sizes: int, type: int = 0, offset: int = 0, name: bytes = b"a", data: int = 64) -> bytes:
    line = string(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, type, offset)
    header = HEADER.pack(b"GGUF", 3, 1, 0) + line
    return header + bytes(-len(header) % ALIGNMENT + data)


NUMBERS = [
    (ValueType.UINT8, 255),
    (ValueType.INT8, -128),
    (ValueType.UINT16, 65535),
    (ValueType.INT16, -32768),
    (ValueType.UINT32, 2**32 - 1),
    (ValueType.INT32, -(2**31)),
    (ValueType.FLOAT32, 0.5),
    (ValueType.BOOL, True),
    (ValueType.UINT64, 2**64 - 1),
    (ValueType.INT64, -(2**63)),
    (ValueType.FLOAT64, 0.1),
]


@pytest.mark.parametrize(("type", "number"), NUMBERS)
def test_numbers_and_arrays_of_numbers_are_read_back(type: ValueType, number: float) -> None:
    contents = read(written({"one": (type, number), "many": (type, [number, number])}))
    assert contents.metadata["one"] == number
    assert isinstance(contents.metadata["one"], type_of(number))
    np.testing.assert_array_equal(contents.metadata["many"], [number, number])


def type_of(number: float) -> type:
    return type(number)


def test_strings_are_read_back() -> None:
    metadata = read(written({"one": (ValueType.STRING, "été"), "many": (ValueType.STRING, ["", "你好"])})).metadata
    assert metadata == {"one": "été", "many": ["", "你好"]}


def test_tensors_are_aligned_and_read_back_in_their_shape() -> None:
    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(5, np.float32)
    content = written({"key": (ValueType.BOOL, False)}, first=first, second=second)
    contents = read(content)
    for name, values in (("first", first), ("second", second)):
        entry = contents.tensors[name]
        assert entry.position % ALIGNMENT == 0
        np.testing.assert_array_equal(read_tensor(io.BytesIO(content), entry, PATH), values)


def test_version_2_is_read() -> None:
    content = written({"key": (ValueType.BOOL, True)})
    assert read(content[:4] + struct.pack("<I", 2) + content[8:]).version == 2


REFUSED = {
    "empty": (b"", "the magic takes 4 bytes from byte 0 on; the file ends 0 bytes later"),
    "magic": (b"GGML" + bytes(40), "starts with b'GGML', expected b'GGUF'"),
    "version 1": (HEADER.pack(b"GGUF", 1, 0, 0), "the GGUF version is 1, expected 2 or 3"),
    "big endian": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "big-endian"),
    "many tensors": (HEADER.pack(b"GGUF", 3, 2**63, 0), "the number of tensors is 9223372036854775808, expected at"),
    "many values": (HEADER.pack(b"GGUF", 3, 0, 2**40), "the number of metadata values is 1099511627776, expected at"),
    "long key": (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q", 2**60) + bytes(13), "key 0 of the metadata takes"),
    "line break in a key": (HEADER.pack(b"GGUF", 3, 0, 1) + string(b"a\nb") + bytes(9), r"key 0 .* is 'a\\nb'"),
    "value type": (with_value(13, bytes(8)), "the type of key is 13, expected 0 to 12"),
    "not UTF-8": (with_value(8, string(b"ab\xff")), "key is not UTF-8 at its byte 2"),
    "nested array": (with_value(9, struct.pack("<IQ", 9, 1) + bytes(20)), "array of arrays"),
    "long array": (with_value(9, struct.pack("<IQ", 8, 2**61)), "the length of key is 2305843009213693952, expected"),
    "cut array": (with_value(9, struct.pack("<IQ", 4, 3) + bytes(8)), "the length of key is 3, expected at most 2"),
    "no dimensions": (with_tensor(data=99), "a has 0 dimensions, expected 1 to 4"),
    "five dimensions": (with_tensor(1, 1, 1, 1, 1), "a has 5 dimensions"),
    "huge shape": (with_tensor(2**62, 2**62), r"cut off or damaged: a ends at byte \d+, the file at 160"),
    "zero in a shape": (with_tensor(0, 4), r"the shape \[4, 0\]"),
    "width of blocks": (with_tensor(48, type=8), r"a of type Q8_0 has the shape \[48\]"),
    "type by name": (with_tensor(256, type=12), "a is of type Q4_K, expected F32, F16, Q4_0, Q8_0, BF16"),
    "type by number": (with_tensor(256, type=77), "a is of type number 77"),
    "offset": (with_tensor(4, offset=2**63), "the offset of a is 9223372036854775808, expected 0"),
    "cut data": (with_tensor(4, data=15), "cut off or damaged"),
    "long name": (with_tensor(4, name=b"a" * 64), "the name of tensor 0 has 64 bytes, expected at most 63"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_damaged_field_is_named(case: str) -> None:
    content, message = REFUSED[case]
    with pytest.raises(FormatError, match=message) as caught:
        read(content)
    assert "model.gguf" in str(caught.value)


def test_names_may_not_repeat() -> None:
    value = string(b"key") + struct.pack("<IB", ValueType.BOOL, 1)
    with pytest.raises(FormatError, match="has the key 'key' twice"):
        read(HEADER.pack(b"GGUF", 3, 0, 2) + value * 2)
    line = string(b"a") + struct.pack("<IQIQ", 1, 8, 0, 0)
    second = string(b"a") + struct.pack("<IQIQ", 1, 8, 0, 32)
    with pytest.raises(FormatError, match="has the tensor 'a' twice"):
        read(HEADER.pack(b"GGUF", 3, 2, 0) + line + second + bytes(96))


def test_tensors_may_not_overlap() -> None:
    lines = b"".join(string(name) + struct.pack("<IQIQ", 1, 8, 0, 0) for name in (b"a", b"b"))
    with pytest.raises(FormatError, match="the offset of b is 0, expected 32"):
        read(HEADER.pack(b"GGUF", 3, 2, 0) + lines + bytes(96))


@pytest.mark.parametrize("alignment", [0, 7, 2**31])
def test_the_alignment_is_a_sensible_power_of_two(alignment: int) -> None:
    with pytest.raises(FormatError, match=f"general.alignment is {alignment}, expected a power of 2"):
        read(written({"general.alignment": (ValueType.UINT32, alignment)}))


def test_a_file_cut_off_anywhere_is_refused() -> None:
    content = written({"key": (ValueType.STRING, ["a", "b"])}, tensor=np.ones((2, 8), np.float32))
    for length in range(len(content)):
        with pytest.raises(FormatError):
            read(content[:length])
