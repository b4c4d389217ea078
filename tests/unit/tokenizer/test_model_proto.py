"""Tests the protobuf reader against SentencePiece's view of a file, and on damaged files."""

import random
import struct

import pytest
from sentencepiece import SentencePieceProcessor

from tinyllm.errors import FormatError
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import PieceType, parse_model


def message(*fields: tuple[int, int | bytes | float]) -> bytes:
    """A protobuf message of small fields, encoded independently of tinyllm."""
    content = b""
    for number, value in fields:
        if isinstance(value, float):
            content += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            content += varint(number << 3) + varint(value)
        else:
            content += varint(number << 3 | 2) + varint(len(value)) + value
    return content


def varint(value: int) -> bytes:
    content = b""
    while value >= 0x80:
        content += bytes([value & 0x7F | 0x80])
        value >>= 7
    return content + bytes([value])


UNK, BPE = message((1, b"<unk>"), (3, 2)), message((3, 2))


def small_model(*extra: tuple[int, int | bytes | float], pieces: tuple[bytes, ...] = ()) -> bytes:
    return message((1, UNK), *((1, piece) for piece in pieces), *extra)


def test_pieces_are_sentencepieces(tokenizer: Tokenizer) -> None:
    processor = SentencePieceProcessor(model_proto=tokenizer.model_proto)
    assert len(tokenizer.pieces) == processor.get_piece_size()
    for id, piece in enumerate(tokenizer.pieces):
        assert (piece.text, piece.score) == (processor.id_to_piece(id), processor.get_score(id))
        assert (piece.type == PieceType.CONTROL) == processor.is_control(id)
        assert (piece.type == PieceType.BYTE) == processor.is_byte(id)
    assert not tokenizer.proto.remove_extra_whitespaces


def test_missing_fields_have_the_defaults_of_protobuf() -> None:
    proto = parse_model(small_model((2, BPE), (99, 5), pieces=(message((1, b"a"), (2, -1.0)),)), "x")
    assert (proto.byte_fallback, proto.add_dummy_prefix, proto.remove_extra_whitespaces) == (False, True, True)
    assert proto.pieces[1] == ("a", -1.0, PieceType.NORMAL)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "it has no pieces"),
        (b"\x0a\xff\xff\xff\xff\x07abc", "field 1 needs 2147483647 bytes, but 3 are left"),
        (b"\x0a", "it ends inside a number"),
        (b"\xff" * 12, "a number of more than 64 bits"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x01", "field number 0"),
        (b"\x08\x01", "field 1 is a number instead of bytes"),
        (small_model((2, message((3, b"bpe")))), "field 3 has bytes instead of a number"),
        (small_model((2, BPE), pieces=(message((1, b"\xff")),)), "utf-8"),
        (small_model((2, BPE), pieces=(message((1, b"a"), (3, 77)),)), "piece 1 has the unknown type 77"),
        (small_model((2, BPE), pieces=(message((1, b"a"), (2, float("nan"))),)), "piece 1 has the score nan"),
        (small_model((2, BPE), pieces=(message((1, b"a"), (2, b"abc")),)), "score of piece 1 has 3 bytes"),
        (small_model((2, BPE), pieces=(b"",)), "piece 1 is empty"),
        (small_model((2, BPE), pieces=(message((1, b"a")),) * 2), "pieces 1 and 2 are both 'a'"),
        (small_model((2, BPE), pieces=(UNK.replace(b"unk", b"UNK"),)), "it has 2 pieces for unknown text"),
        (small_model((2, message((3, 2), (35, 1)))), "it has 0 byte pieces with byte_fallback True"),
        (small_model((2, message((3, 1)))), "a unigram model, not BPE"),
        (small_model((2, BPE), (3, message((2, b"map")))), "with text normalization"),
        (small_model((2, BPE), (3, message((5, 0)))), "escape_whitespaces off"),
        (small_model((2, message((3, 2), (24, 1)))), "whitespace as a suffix"),
        (small_model((2, BPE), (200, 9)), "field 200 is 9"),
        (small_model((2, BPE), pieces=(message((1, b"old"), (3, 5)),)), "unused piece 'old' (id 1)"),
    ],
)
def test_a_faulty_model_is_refused_with_its_fault(content: bytes, fault: str) -> None:
    with pytest.raises(FormatError) as error:
        parse_model(content, "bad.model")
    assert str(error.value).startswith("bad.model ")
    assert fault in str(error.value)


def test_damaged_models_never_crash(tokenizer: Tokenizer) -> None:
    """Flipped, cut and removed bytes lead to a FormatError, or to a model that still encodes and decodes."""
    draw = random.Random(0)
    for _ in range(300):
        damaged = bytearray(tokenizer.model_proto)
        place = draw.choice([draw.randrange(len(damaged)), len(damaged) - 1 - draw.randrange(60)])
        match draw.randrange(3):
            case 0:
                damaged[place] = draw.randrange(256)
            case 1:
                del damaged[place:]
            case 2:
                del damaged[place : place + draw.randint(1, 20)]
        try:
            survivor = Tokenizer.from_bytes(bytes(damaged), "damaged.model")
        except FormatError as error:
            assert str(error).startswith("damaged.model ")  # noqa: PT017
        else:
            survivor.decode(survivor.encode("a b 12 é 😀"))
