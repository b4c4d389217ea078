"""Tests a tokenizer fitted to a model's rows: fillers decode to no text, and pieces that texts need are kept."""

from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import Piece, PieceType
from tinyllm.tokenizer.resizing import MOST_FILLERS, fit_to, with_pieces
from tinyllm.tokenizer.training import train_model

TOKENIZER = Tokenizer.from_bytes(train_model(["a cat sat on the mat"] * 3, 285), "test.model")
TEXT = "the cat [PAD286] sat"


def test_rows_without_a_token_get_pieces_without_text() -> None:
    fitted = fit_to(TOKENIZER, 300)
    assert fitted is not None
    assert (fitted.vocab_size, fitted.bos_id, fitted.eos_id) == (300, 1, 2)
    assert fitted.encode(TEXT) == TOKENIZER.encode(TEXT)
    assert fitted.decode([*fitted.encode(TEXT), 286, 299]) == TEXT


def test_added_pieces_without_a_row_are_dropped() -> None:
    added = [Piece("<pad>", 0.0, PieceType.CONTROL), Piece("<x>", 0.0, PieceType.USER_DEFINED)]
    larger = with_pieces(TOKENIZER, [*TOKENIZER.pieces, *added]).with_rules(end_ids=[2, 285])
    fitted = fit_to(larger, 285)
    assert fitted is not None
    assert fitted.pieces == TOKENIZER.pieces
    assert fitted.end_ids == {2}


def test_pieces_that_texts_need_are_not_dropped() -> None:
    assert fit_to(TOKENIZER, 284) is None


def test_a_model_with_far_more_rows_does_not_fit() -> None:
    assert fit_to(TOKENIZER, 286 + MOST_FILLERS) is None
    assert fit_to(TOKENIZER, 285) is TOKENIZER
