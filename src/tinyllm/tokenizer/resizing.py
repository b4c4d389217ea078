"""Fits a tokenizer to a model's number of rows: adds a piece for each unused row, or removes surplus added pieces.

Models are often padded to a round number of rows, and a tokenizer may have an added token without a row in the model.
transformers and llama.cpp run both, and decode an unused row to no text.
"""

from collections.abc import Mapping, Sequence

from tinyllm.tokenizer.byte_level import ByteLevelTokenizer
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import Piece, PieceType, Spacing
from tinyllm.tokenizer.proto_writer import write_model_proto

MOST_FILLERS = 2**16
"""Limit of unused rows; real models have up to a few thousand."""


def filler_text(id: int) -> str:
    """The text of the piece for an unused row, as named by llama.cpp's converter."""
    return f"[PAD{id}]"


def filler(id: int) -> Piece:
    """A piece that no text encodes to and that decodes to no text."""
    return Piece(filler_text(id), 0.0, PieceType.CONTROL)


def fit_to(tokenizer: Tokenizer, vocab_size: int) -> Tokenizer | None:
    """`tokenizer` with `vocab_size` pieces; None if that would remove a piece that texts encode to."""
    pieces = tokenizer.pieces
    if len(pieces) == vocab_size:
        return tokenizer
    if len(pieces) < vocab_size:
        if vocab_size - len(pieces) > MOST_FILLERS:
            return None
        if isinstance(tokenizer, ByteLevelTokenizer):
            return tokenizer.with_fillers(map(filler_text, range(len(pieces), vocab_size)))
        return with_pieces(tokenizer, [*pieces, *map(filler, range(len(pieces), vocab_size))])
    if isinstance(tokenizer, ByteLevelTokenizer):
        return None
    surplus = range(vocab_size, len(pieces))
    needed = {tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id}
    added = (PieceType.CONTROL, PieceType.USER_DEFINED)
    if any(id in needed or pieces[id].type not in added for id in surplus):
        return None
    return with_pieces(tokenizer, pieces[:vocab_size])


def with_pieces(
    tokenizer: Tokenizer,
    pieces: Sequence[Piece],
    *,
    special: Mapping[str, int | None] | None = None,
    spacing: Spacing | None = None,
) -> Tokenizer:
    """`tokenizer` with other pieces and the same settings.

    `special` replaces the ids of `bos`, `eos` or `pad`. End tokens are kept if `pieces` still has their ids.
    Raises FormatError if SentencePiece cannot use the pieces.
    """
    proto = tokenizer.proto
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id, **(special or {})}
    ids = {name: id if id is not None and id < len(pieces) else None for name, id in ids.items()}
    content = write_model_proto(
        list(pieces),
        unk_id=tokenizer.unk_id,
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        pad_id=ids["pad"],
        add_dummy_prefix=proto.add_dummy_prefix,
        remove_extra_whitespaces=proto.remove_extra_whitespaces,
        unk_surface=proto.unk_surface,
        spacing=proto.spacing if spacing is None else spacing,
        adds_bos=proto.adds_bos,
    )
    changed = Tokenizer.from_bytes(content, tokenizer.name)
    default = frozenset(id for id in (tokenizer.bos_id, tokenizer.eos_id) if id is not None)
    if tokenizer.end_ids == default:
        return changed
    return changed.with_rules(end_ids=(id for id in tokenizer.end_ids if id < len(pieces)))
