"""Builds the other files of a tokenizer: `tokenizer.json`, `tokenizer_config.json` and `tokenizer.vocab`.

`tokenizer.json` is built from the pieces, so its ids equal SentencePiece's for every text, literal `<s>` included.
The functions return bytes; their callers write the files.
"""

import json
from collections.abc import Iterator
from typing import Any

from tinyllm.tokenizer.byte_level import ByteLevelTokenizer
from tinyllm.tokenizer.codec import MODEL_NAME, Tokenizer
from tinyllm.tokenizer.model_proto import SPACE, PieceType, Spacing
from tinyllm.tokenizer.resizing import filler_text

VOCAB_NAME = "tokenizer.vocab"
JSON_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"


def hugging_face_files(tokenizer: Tokenizer, context_length: int | None = None) -> dict[str, bytes]:
    """The tokenizer's files in a Hugging Face directory, as name -> bytes; `context_length` is a model's, in tokens.

    transformers' `AutoTokenizer` encodes with them as BOS followed by SentencePiece's ids.
    """
    if isinstance(tokenizer, ByteLevelTokenizer):
        return tokenizer.files_of_model(context_length)
    return {
        MODEL_NAME: tokenizer.model_proto,
        JSON_NAME: tokenizer_json(tokenizer),
        CONFIG_NAME: _to_json(_transformers_config(tokenizer, context_length)),
    }


def padding_id(tokenizer: Tokenizer) -> int | None:
    """The id that pads shorter texts of a batch: the padding token, else the end token; None if there is neither.

    transformers needs one to batch texts; tinyllm does not use it.
    """
    if tokenizer.pad_id is not None:
        return tokenizer.pad_id
    return tokenizer.eos_id if tokenizer.eos_id is not None else min(tokenizer.end_ids, default=None)


def vocab_text(tokenizer: Tokenizer) -> bytes:
    """The readable list that SentencePiece writes with a model: one piece and its score a line."""
    return "".join(f"{piece.text}\t{piece.score:g}\n" for piece in tokenizer.pieces).encode()


def tokenizer_json(tokenizer: Tokenizer) -> bytes:
    """The tokenizer as JSON for Hugging Face's `tokenizers`, with the same ids and the same decoded text.

    BOS and EOS are *not* added tokens: `tokenizers` would cut `<s>` out of a text, in which SentencePiece sees three
    ordinary characters. The post-processor adds BOS by its id, and the decoder drops control tokens, as SentencePiece
    does.
    """
    unk_piece = tokenizer.id_to_piece(tokenizer.unk_id)
    metaspace = _metaspace(tokenizer)
    return _to_json(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                _added_token(text, id, normalized=tokenizer.pieces[id].text.startswith(SPACE))
                for text, id in _vocabulary(tokenizer).items()
                if _is_user_defined(tokenizer, id)
            ],
            "normalizer": {"type": "Sequence", "normalizers": _normalizers(tokenizer)} if not metaspace else None,
            "pre_tokenizer": metaspace,
            "post_processor": _bos_template(tokenizer),
            "decoder": {"type": "Sequence", "decoders": _decoders(tokenizer)},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": unk_piece,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": True,
                "byte_fallback": tokenizer.proto.byte_fallback,
                "ignore_merges": False,
                "vocab": _vocabulary(tokenizer),
                "merges": list(merges(tokenizer)),
            },
        },
        indent=None,
    )


def merges(tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """The merges of BPE, in the order of their priority.

    SentencePiece merges any two neighbours whose concatenation is a piece, best score first. So each piece appears once
    for every split into two pieces, ahead of all pieces with a lower score.
    """
    normal = {piece.text: piece.score for piece in tokenizer.pieces if piece.type == PieceType.NORMAL}
    for text in sorted(normal, key=lambda text: -normal[text]):
        # SentencePiece merges the left one of two overlapping matches. Runs such as `aaaaa` are merged from the left,
        # so their longer part is on the left: that split comes first.
        for cut in range(len(text) - 1, 0, -1):
            if text[:cut] in normal and text[cut:] in normal:
                yield text[:cut], text[cut:]


def _vocabulary(tokenizer: Tokenizer) -> dict[str, int]:
    """The id of each piece's text, in Hugging Face's form.

    Hugging Face lists a user-defined piece without a leading ▁, and normalizes it before the search.
    """
    return {
        piece.text.removeprefix(SPACE) if piece.type == PieceType.USER_DEFINED else piece.text: id
        for id, piece in enumerate(tokenizer.pieces)
    }


def _is_user_defined(tokenizer: Tokenizer, id: int) -> bool:
    return tokenizer.pieces[id].type == PieceType.USER_DEFINED


def _added_token(text: str, id: int, *, special: bool = False, normalized: bool = False) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": normalized, "special": special}
    return {"id": id, "content": text, **flags}


def _metaspace(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """A pre-tokenizer in place of the normalizer, if the spacing rule adds spaces before sections; else None."""
    proto = tokenizer.proto
    if proto.spacing not in (Spacing.FIRST, Spacing.ALWAYS) or proto.remove_extra_whitespaces:
        return None
    scheme = proto.spacing.name.lower() if proto.add_dummy_prefix else "never"
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}


def _normalizers(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The normalizers: drop extra spaces if the model does, prepend a space, replace spaces by ▁."""
    removes = tokenizer.proto.remove_extra_whitespaces
    steps = []
    if removes:
        steps += [_replace({"Regex": r"\A +"}, ""), _replace({"Regex": " {2,}"}, " ")]
    if tokenizer.proto.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append(_replace({"String": " "}, SPACE))
    if removes:
        # This follows the replacement because SentencePiece also drops a literal ▁ at the end.
        steps.append(_replace({"Regex": rf"{SPACE}+\z"}, ""))
    return steps


def _decoders(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The decoders. For invalid UTF-8 they may return fewer U+FFFD than SentencePiece."""
    steps = [_replace({"String": SPACE}, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    if tokenizer.proto.remove_extra_whitespaces:
        steps.append(_replace({"Regex": r"\A +"}, ""))
    elif tokenizer.proto.add_dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    control = [piece.text for piece in tokenizer.pieces if piece.type == PieceType.CONTROL]
    hidden = [_replace(_whole(*control), "")] if control else []
    unknown = _replace(_whole(tokenizer.id_to_piece(tokenizer.unk_id)), tokenizer.proto.unk_surface)
    return [*hidden, unknown, *steps]


def _whole(*pieces: str) -> dict[str, str]:
    """A pattern for a token that equals one of `pieces`, in the syntax of Oniguruma."""
    escaped = ("".join(rf"\x{{{ord(character):X}}}" for character in piece) for piece in pieces)
    return {"Regex": rf"\A(?:{'|'.join(escaped)})\z"}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _bos_template(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The post-processor that adds BOS before each sequence; None if the tokenizer adds no BOS."""
    if tokenizer.bos_id is None or not tokenizer.begins_with_bos:
        return None
    piece = tokenizer.id_to_piece(tokenizer.bos_id)

    def sequence(name: str, type_id: int) -> list[dict[str, Any]]:
        return [
            {"SpecialToken": {"id": piece, "type_id": type_id}},
            {"Sequence": {"id": name, "type_id": type_id}},
        ]

    return {
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": sequence("A", 0) + sequence("B", 1),
        "special_tokens": {piece: {"id": piece, "ids": [tokenizer.bos_id], "tokens": [piece]}},
    }


def _transformers_config(tokenizer: Tokenizer, context_length: int | None) -> dict[str, Any]:
    """The content of `tokenizer_config.json`: the special tokens, and no splitting of texts at them."""
    named = {
        "bos": tokenizer.bos_id,
        "eos": tokenizer.eos_id,
        "unk": tokenizer.unk_id,
        "pad": padding_id(tokenizer),
    }
    present = {f"{name}_token": tokenizer.id_to_piece(id) for name, id in named.items() if id is not None}
    reserved = {
        str(id): {key: value for key, value in _added_token(piece.text, id, special=True).items() if key != "id"}
        for id, piece in enumerate(tokenizer.pieces)
        if piece.type == PieceType.CONTROL and id not in named.values() and piece.text != filler_text(id)
    }
    return {
        # This class uses tokenizer.json unchanged; LlamaTokenizer would build its own normalizer.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **present,
        **({"added_tokens_decoder": reserved} if reserved else {}),
        "add_bos_token": tokenizer.begins_with_bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        # A literal <s> in a text is ordinary text, as in SentencePiece.
        "split_special_tokens": True,
        **({} if context_length is None else {"model_max_length": context_length}),
    }


def _to_json(value: object, indent: int | None = 2) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=indent) + "\n").encode()
