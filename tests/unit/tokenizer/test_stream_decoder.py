"""Tests the decoder for streams against SentencePiece."""

from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from reference_data import reduced_tokenizer
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import PieceType
from tinyllm.tokenizer.training import train_model

TOKENIZER = Tokenizer.from_bytes(train_model(["a cat  sat 12 é 你 😀 on the mat"] * 3, 285), "test.model")
PROCESSOR = SentencePieceProcessor(model_proto=TOKENIZER.model_proto)
BYTE_IDS = [id for id, piece in enumerate(TOKENIZER.pieces) if piece.type == PieceType.BYTE]


def stream_text(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = tokenizer.stream()
    return [*(decoder.push(id) for id in ids), decoder.finish()]


@settings(max_examples=300)
@given(st.lists(st.one_of(st.integers(0, TOKENIZER.vocab_size - 1), st.sampled_from(BYTE_IDS)), max_size=12))
def test_stream_pieces_join_to_the_decoded_text(ids: list[int]) -> None:
    """The ids are arbitrary, with invalid UTF-8, control tokens in the middle and leading spaces."""
    assert "".join(stream_text(TOKENIZER, ids)) == PROCESSOR.decode(ids)


def test_stream_never_cuts_a_character() -> None:
    pieces = stream_text(TOKENIZER, TOKENIZER.encode("z 🦊!"))
    assert "".join(pieces) == "z 🦊!"
    assert "🦊" in pieces
    assert not any("\ufffd" in piece for piece in pieces)


def test_stream_agrees_if_extra_whitespace_is_removed() -> None:
    """tok4096 drops every leading space, a model trained here only the first."""
    tokenizer = Tokenizer.from_bytes(reduced_tokenizer("tok4096"), "tok4096")
    space = next(id for id, piece in enumerate(tokenizer.pieces) if piece.text == "▁")
    word = tokenizer.encode("cat")[0]
    for ids in ([space, space, word], [1, space, word, space, word], [0, space, word], [word, space]):
        assert "".join(stream_text(tokenizer, ids)) == tokenizer.decode(ids)
