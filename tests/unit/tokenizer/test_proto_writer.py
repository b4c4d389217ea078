"""Tests that a model written from its pieces is the same tokenizer, and that SentencePiece reads it."""

from typing import Any

import pytest

from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import Piece, PieceType
from tinyllm.tokenizer.proto_writer import write_model_proto


def rewritten(tokenizer: Tokenizer, **settings: Any) -> Tokenizer:
    proto = write_model_proto(
        tokenizer.pieces, unk_id=tokenizer.unk_id, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, **settings
    )
    return Tokenizer.from_bytes(proto, "rewritten")


def test_the_vocabulary_and_the_ids_are_the_same(tokenizer: Tokenizer, lines: list[str]) -> None:
    settings = {
        "add_dummy_prefix": tokenizer.proto.add_dummy_prefix,
        "remove_extra_whitespaces": tokenizer.proto.remove_extra_whitespaces,
    }
    again = rewritten(tokenizer, **settings)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.proto == tokenizer.proto
    assert [again.encode(line) for line in lines] == [tokenizer.encode(line) for line in lines]
    assert (again.unk_id, again.bos_id, again.eos_id, again.pad_id) == (0, 1, 2, None)


def test_the_whitespace_settings_take_effect(tokenizer: Tokenizer) -> None:
    plain = rewritten(tokenizer, add_dummy_prefix=False, remove_extra_whitespaces=False)
    assert plain.encode("a  ") != rewritten(tokenizer, add_dummy_prefix=True).encode("a  ")
    assert plain.decode(plain.encode("a  b  ")) == "a  b  "
    assert rewritten(tokenizer, remove_extra_whitespaces=True).encode("a  ") == plain.encode(" a")


def test_special_tokens_may_have_any_id_and_text() -> None:
    pieces = [Piece("a", -1.0, PieceType.NORMAL), Piece("[U]", 0.0, PieceType.UNKNOWN)]
    pieces += [Piece(text, 0.0, PieceType.CONTROL) for text in ("[P]", "[E]", "[B]")]
    proto = write_model_proto(pieces, unk_id=1, bos_id=4, eos_id=3, pad_id=2, add_dummy_prefix=False)
    tokenizer = Tokenizer.from_bytes(proto, "special")
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 4, 3, 2)
    assert tokenizer.encode("ab", bos=True) == [4, 0, 1]


def test_an_id_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="bos_id is 3; the vocabulary has the ids 0 to 0"):
        write_model_proto([Piece("<unk>", 0.0, PieceType.UNKNOWN)], unk_id=0, bos_id=3, eos_id=None)
