"""Tests the codec against SentencePiece."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from tinyllm import storage
from tinyllm.errors import ArtifactError, FormatError, InputError
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import Piece, PieceType, Spacing
from tinyllm.tokenizer.proto_writer import write_model_proto
from tinyllm.tokenizer.training import train_model
from tinyllm.tokenizer.word_cache import cached_encoder

TOKENIZER = Tokenizer.from_bytes(train_model(["a cat  sat 12 é 你 😀 on the mat"] * 3, 285), "test.model")
PROCESSOR = SentencePieceProcessor(model_proto=TOKENIZER.model_proto)


@given(st.text())
def test_ids_are_sentencepieces_and_decode_to_the_text(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert ids == PROCESSOR.encode(text)
    assert TOKENIZER.decode(ids) == text.replace("▁", " ")
    assert TOKENIZER.encode(text, bos=True, eos=True) == [TOKENIZER.bos_id, *ids, TOKENIZER.eos_id]


def test_piece_bytes_join_to_the_text() -> None:
    ids = TOKENIZER.encode("the mat 😀\n1", bos=True, eos=True)
    assert b"".join(map(TOKENIZER.piece_bytes, ids)).decode() == " the mat 😀\n1"


def test_fingerprint_depends_on_the_pieces_and_not_on_the_name() -> None:
    same = Tokenizer.from_bytes(TOKENIZER.model_proto, "another name")
    assert same.fingerprint == TOKENIZER.fingerprint
    assert len(TOKENIZER.fingerprint) == len(hashlib.sha256().hexdigest())
    other = Tokenizer.from_bytes(train_model(["another text 12"] * 3, 272), "other.model")
    assert other.fingerprint != TOKENIZER.fingerprint


def test_control_tokens_have_the_first_ids() -> None:
    assert (TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.unk_id, TOKENIZER.pad_id) == (1, 2, 0, None)
    assert TOKENIZER.vocab_size == 285
    assert TOKENIZER.num_tokens("a cat") == len(TOKENIZER.encode("a cat"))


@pytest.mark.parametrize("id", [-1, 285, 10**30])
def test_id_out_of_range_is_named(id: int) -> None:
    with pytest.raises(InputError, match=f"token id {id} is out of range: test.model has 285 tokens, 0 to 284"):
        TOKENIZER.decode([1, id])
    with pytest.raises(InputError, match="out of range"):
        TOKENIZER.stream().push(id)


def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(InputError, match=r"character 1 .* U\+D800"):
        TOKENIZER.encode("a\ud800")


def test_missing_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; make a tokenizer"):
        Tokenizer.load(tmp_path / "absent.model")
    with pytest.raises(InputError, match=r"tokenizer\.model does not exist"):
        Tokenizer.load(tmp_path)


def test_directory_with_a_changed_model_is_refused(tmp_path: Path) -> None:
    with storage.commit_directory(tmp_path / "tok", "tokenizer") as draft:
        storage.write_file(draft.path / "tokenizer.model", TOKENIZER.model_proto)
    assert Tokenizer.load(tmp_path / "tok").fingerprint == TOKENIZER.fingerprint
    changed = bytearray(TOKENIZER.model_proto)
    changed[-1] ^= 1
    (tmp_path / "tok" / "tokenizer.model").write_bytes(changed)
    with pytest.raises(ArtifactError, match="SHA-256"):
        Tokenizer.load(tmp_path / "tok")


def test_text_file_is_refused_as_a_model(tmp_path: Path) -> None:
    (tmp_path / "x.model").write_text("Once upon a time\n")
    with pytest.raises(FormatError, match=r"x\.model is not a whole SentencePiece model"):
        Tokenizer.load(tmp_path / "x.model")


MARKED = Tokenizer.from_bytes(
    train_model(["a cat sat on the mat"] * 3, 285, special=["<|a|>", "<|ab|>"]), "marked.model"
)


@given(st.lists(st.sampled_from(["<|a|>", "<|ab|>", "<s>", "cat", " ", "▁", "<|", "é"])).map("".join))
def test_control_pieces_in_a_text_are_text(text: str) -> None:
    controls = {id for id, piece in enumerate(MARKED.pieces) if piece.type == PieceType.CONTROL}
    assert not controls & set(MARKED.encode(text))
    assert MARKED.decode(MARKED.encode(text)) == text.replace("▁", " ")


def test_control_pieces_are_tokens_on_request() -> None:
    """The text between two control pieces is encoded as a separate text."""
    cat = MARKED.encode("cat")
    assert MARKED.encode("<|ab|>cat<s>cat", allow_special=True) == [284, *cat, 1, *cat]
    assert MARKED.encode("cat", allow_special=True) == cat
    with pytest.raises(InputError, match="lone surrogate"):
        MARKED.encode("<|a|>\ud800", allow_special=True)


def test_user_defined_pieces_of_a_model_file_give_sentencepieces_ids() -> None:
    pieces = [*TOKENIZER.pieces, Piece("<x>", 0.0, PieceType.USER_DEFINED), Piece("▁y", 0.0, PieceType.USER_DEFINED)]
    proto = write_model_proto(pieces, unk_id=0, bos_id=1, eos_id=2)
    tokenizer, theirs = Tokenizer.from_bytes(proto, "x.model"), SentencePieceProcessor(model_proto=proto)
    for text in ("a<x>cat", "<x>cat", "<x><x>", " <x> y", "y y<x>", "the mat"):
        ids = tokenizer.encode(text)
        assert ids == theirs.encode(text)
        decoder = tokenizer.stream()
        assert tokenizer.decode(ids) == "".join(map(decoder.push, ids)) + decoder.finish() == theirs.decode(ids)
        assert cached_encoder(tokenizer)(text) == np.array(ids, np.uint32).tobytes()


def test_the_bos_rule_is_stored_in_the_model_file() -> None:
    changed = TOKENIZER.with_rules(adds_bos=False, end_ids=[7])
    assert (changed.begins_with_bos, changed.end_ids, changed.bos_id) == (False, frozenset({7}), 1)
    again = Tokenizer.from_bytes(changed.model_proto, "again")
    assert (again.begins_with_bos, again.end_ids) == (False, frozenset({1, 2})), (
        "end tokens belong to a model, not to a tokenizer"
    )
    assert again.fingerprint == TOKENIZER.fingerprint
    assert Tokenizer.from_bytes(again.with_rules(adds_bos=True).model_proto, "x").begins_with_bos
    assert TOKENIZER.begins_with_bos


@pytest.mark.parametrize("spacing", [Spacing.SECTIONS, Spacing.FIRST, Spacing.ALWAYS])
def test_words_are_not_cached_if_text_is_cut_into_sections(spacing: Spacing) -> None:
    pieces = [*TOKENIZER.pieces, Piece("<x>", 0.0, PieceType.USER_DEFINED)]
    tokenizer = Tokenizer.from_bytes(write_model_proto(pieces, unk_id=0, bos_id=1, eos_id=2, spacing=spacing), "x")
    for text in ("a<x>cat sat", "<x> cat", "  cat", "cat <x>"):
        assert cached_encoder(tokenizer)(text) == np.array(tokenizer.encode(text), np.uint32).tobytes()
