"""The files a tokenizer lives in besides `.model`: Hugging Face's `tokenizer.json` and its config, and `.vocab`.

`tokenizer.json` is built from the pieces, so that its ids are SentencePiece's on every text, literal `<s>` included.
The bytes are made here; whoever commits a directory writes them.
"""

import json
from collections.abc import Iterator
from typing import Any

from tinyllm.tokenizer.codec import MODEL_NAME, SPACE, Tokenizer
from tinyllm.tokenizer.model_proto import PieceType, Spacing
from tinyllm.tokenizer.resizing import filler_text

VOCAB_NAME = "tokenizer.vocab"
JSON_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"


def hugging_face_files(tokenizer: Tokenizer, context_length: int) -> dict[str, bytes]:
    """The tokenizer's files of a Hugging Face model directory, by name; `context_length` is the model's, in tokens.

    transformers' `AutoTokenizer` gives BOS and then SentencePiece's ids.
    """
    return {
        MODEL_NAME: tokenizer.model_proto,
        JSON_NAME: tokenizer_json(tokenizer),
        CONFIG_NAME: _to_json(_transformers_config(tokenizer, context_length)),
    }


def padding_id(tokenizer: Tokenizer) -> int | None:
    """The token that fills shorter texts of a batch: the tokenizer's own, else the end token, or None for neither.

    transformers needs one to put texts side by side; nothing of tinyllm uses it.
    """
    if tokenizer.pad_id is not None:
        return tokenizer.pad_id
    return tokenizer.eos_id if tokenizer.eos_id is not None else min(tokenizer.end_ids, default=None)


def vocab_text(tokenizer: Tokenizer) -> bytes:
    """The readable list that SentencePiece writes beside a model: a piece and its score a line."""
    return "".join(f"{piece.text}\t{piece.score:g}\n" for piece in tokenizer.pieces).encode()


def tokenizer_json(tokenizer: Tokenizer) -> bytes:
    """The tokenizer for Hugging Face's `tokenizers`, with the same ids and the same text back.

    BOS and EOS are *not* listed as added tokens: those are cut out of the text wherever it contains `<s>`, where
    SentencePiece sees three ordinary characters. The post-processor adds BOS by its id, and the decoder drops
    control tokens, as SentencePiece does.
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
    """The pairs that BPE joins, first to last.

    SentencePiece joins any two neighbours whose concatenation is a piece, the best score first; so a piece stands
    here once for each way to cut it into two pieces, all of them before the pieces of lower score.
    """
    normal = {piece.text: piece.score for piece in tokenizer.pieces if piece.type == PieceType.NORMAL}
    for text in sorted(normal, key=lambda text: -normal[text]):
        # Of two overlapping places for one piece SentencePiece joins the left one. Runs such as `aaaaa` are joined
        # from the left, so their longer parts stand left: that cut comes first.
        for cut in range(len(text) - 1, 0, -1):
            if text[:cut] in normal and text[cut:] in normal:
                yield text[:cut], text[cut:]


def _vocabulary(tokenizer: Tokenizer) -> dict[str, int]:
    """The id of each text. A user-defined piece that begins with ▁ is found in the text after its normalization.

    Hugging Face lists it without that ▁, and normalizes what it lists.
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
    """The pre-tokenizer that takes the place of a normalizer where spaces go before sections by its rules."""
    proto = tokenizer.proto
    if proto.spacing not in (Spacing.FIRST, Spacing.ALWAYS) or proto.remove_extra_whitespaces:
        return None
    scheme = proto.spacing.name.lower() if proto.add_dummy_prefix else "never"
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}


def _normalizers(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """From a text to what BPE sees: a space before it, spaces as ▁, and extra ones gone if the model says so."""
    removes = tokenizer.proto.remove_extra_whitespaces
    steps = []
    if removes:
        steps += [_replace({"Regex": r"\A +"}, ""), _replace({"Regex": " {2,}"}, " ")]
    if tokenizer.proto.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append(_replace({"String": " "}, SPACE))
    if removes:
        # After the replacement on purpose: SentencePiece drops a literal ▁ at the end as well.
        steps.append(_replace({"Regex": rf"{SPACE}+\z"}, ""))
    return steps


def _decoders(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """From pieces to text. Broken UTF-8 from byte pieces may give fewer U+FFFD than SentencePiece's decoder."""
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
    """A pattern for a token that is exactly one of `pieces`, in the syntax of Oniguruma."""
    escaped = ("".join(rf"\x{{{ord(character):X}}}" for character in piece) for piece in pieces)
    return {"Regex": rf"\A(?:{'|'.join(escaped)})\z"}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _bos_template(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The post-processor that puts BOS before each sequence."""
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


def _transformers_config(tokenizer: Tokenizer, context_length: int) -> dict[str, Any]:
    """What transformers adds to `tokenizer.json`: names of the special tokens, and to leave them in texts alone."""
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
        # The one class that takes tokenizer.json as it is; LlamaTokenizer would build its own normalizer.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **present,
        **({"added_tokens_decoder": reserved} if reserved else {}),
        "add_bos_token": tokenizer.begins_with_bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        # A text with a literal <s> in it is ordinary text, here as in SentencePiece.
        "split_special_tokens": True,
        "model_max_length": context_length,
    }


def _to_json(value: object, indent: int | None = 2) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=indent) + "\n").encode()
