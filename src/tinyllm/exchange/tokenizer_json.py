"""A Tokenizer from Hugging Face's `tokenizer.json`, where it is a SentencePiece BPE model in other words.

That it is one is checked, not assumed: SentencePiece joins any two neighbours whose concatenation is a piece, so each
way to cut a piece in two must be a merge, and all merges of one piece must stand together; their order gives the
scores. A `tokenizer.json` with fewer merges, another pre-tokenizer or no byte fallback (GPT-2, Llama 3) is refused.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinyllm.errors import FormatError
from tinyllm.exchange.json_file import read_json_object
from tinyllm.tokenizer.codec import SPACE, Tokenizer
from tinyllm.tokenizer.model_proto import Piece, PieceType
from tinyllm.tokenizer.proto_writer import write_model_proto

PIECE_LIMIT = 512
"""Characters; real pieces have up to 16, and each way to cut one is looked at."""
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_MODEL_SETTINGS: dict[str, tuple[object, ...]] = {
    "type": ("BPE",),
    "byte_fallback": (True,),
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "ignore_merges": (None, False),
}


def read_tokenizer_json(path: Path) -> Tokenizer:
    """The tokenizer in the file `path`, with the names of its special tokens from `tokenizer_config.json` beside it.

    Raises FormatError where it is damaged, or where SentencePiece would give other ids.
    """
    content = read_json_object(path)
    model = content.get("model")
    if not isinstance(model, dict):
        raise FormatError(f"{path} has no model")
    for key, allowed in _MODEL_SETTINGS.items():
        if model.get(key) not in allowed:
            raise _refusal(path, f"model.{key} is {model.get(key)!r}, expected {allowed[0]!r}")
    add_dummy_prefix, remove_extra_whitespaces = _read_spacing(content, path)
    config_path = path.with_name("tokenizer_config.json")
    special = _special_texts(model, read_json_object(config_path) if config_path.is_file() else {})
    texts, control = _read_vocabulary(model, content.get("added_tokens") or [], path)
    control |= {text for text in special.values() if text in texts}
    types = [_type(text, special["unk"], control) for text in texts]
    scores = _scores(texts, types, _read_merges(model, path), path)
    ids = {text: id for id, text in enumerate(texts)}
    if special["unk"] not in ids:
        raise FormatError(f"{path}: the token for unknown text, {special['unk']!r}, is not in the vocabulary")
    proto = write_model_proto(
        [Piece(text, score, type) for text, score, type in zip(texts, scores, types, strict=True)],
        unk_id=ids[special["unk"]],
        bos_id=ids.get(special["bos"]),
        eos_id=ids.get(special["eos"]),
        pad_id=ids.get(special["pad"]) if special["pad"] != special["unk"] else None,
        add_dummy_prefix=add_dummy_prefix,
        remove_extra_whitespaces=remove_extra_whitespaces,
    )
    return Tokenizer.from_bytes(proto, str(path))


def _read_spacing(content: Mapping[str, Any], path: Path) -> tuple[bool, bool]:
    """Whether encoding puts a space before the text, and whether it removes extra ones."""
    normalizer, splitter = content.get("normalizer"), content.get("pre_tokenizer")
    if normalizer is None and isinstance(splitter, dict):
        if splitter.get("type") == "Metaspace" and splitter.get("split") is False:
            scheme = splitter.get("prepend_scheme")
            if splitter.get("replacement") == SPACE and scheme in ("always", "first", "never"):
                return scheme != "never", False
    elif splitter is None and isinstance(normalizer, dict):
        steps = normalizer.get("normalizers") if normalizer.get("type") == "Sequence" else [normalizer]
        for prefix in (True, False):
            for removes in (True, False):
                if steps == _normalizing_steps(prefix, removes):
                    return prefix, removes
    raise _refusal(path, "its normalizer and pre_tokenizer are not those of a SentencePiece model")


def _normalizing_steps(prefix: bool, removes: bool) -> list[dict[str, Any]]:
    """The normalizers that say what the two whitespace settings of a SentencePiece model say."""

    def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": pattern, "content": content}

    return [
        *([replace({"Regex": r"\A +"}, ""), replace({"Regex": " {2,}"}, " ")] if removes else []),
        *([{"type": "Prepend", "prepend": SPACE}] if prefix else []),
        replace({"String": " "}, SPACE),
        *([replace({"Regex": rf"{SPACE}+\z"}, "")] if removes else []),
    ]


def _special_texts(model: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the unknown, BOS, EOS and padding tokens; empty for one that the files do not have."""
    defaults = {"unk": model.get("unk_token") or "<unk>", "bos": "<s>", "eos": "</s>", "pad": ""}
    texts = {}
    for name, default in defaults.items():
        token = config.get(f"{name}_token", default)
        text = token.get("content") if isinstance(token, dict) else token
        texts[name] = text if isinstance(text, str) else ""
    return texts


def _read_vocabulary(model: Mapping[str, Any], added: Any, path: Path) -> tuple[list[str], set[str]]:
    """The text of each id, and the texts that are special tokens."""
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not isinstance(added, list):
        raise FormatError(f"{path}: model.vocab is not an object, or added_tokens is not an array")
    ids = dict(vocabulary)
    control = set()
    for token in added:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise FormatError(f"{path}: added_tokens holds {token!r:.60}, expected objects with a content")
        text = token["content"]
        if token.get("special") is not True:
            raise _refusal(path, f"the added token {text!r} is not special")
        if ids.setdefault(text, token.get("id")) != token.get("id"):
            raise FormatError(f"{path}: the added token {text!r} has another id in model.vocab")
        control.add(text)
    texts = {id: text for text, id in ids.items() if type(id) is int}
    if sorted(texts) != list(range(len(ids))):
        raise FormatError(f"{path}: the ids of its {len(ids)} tokens are not 0 to {len(ids) - 1}")
    longest = max(ids, key=len, default="")
    if len(longest) > PIECE_LIMIT:
        raise FormatError(f"{path}: the token {longest[:20]!r}… has {len(longest)} characters, at most {PIECE_LIMIT}")
    return [texts[id] for id in range(len(texts))], control


def _type(text: str, unknown: str, control: set[str]) -> PieceType:
    if text == unknown:
        return PieceType.UNKNOWN
    if text in control:
        return PieceType.CONTROL
    return PieceType.BYTE if text in _BYTES else PieceType.NORMAL


def _read_merges(model: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise FormatError(f"{path}: model.merges is not an array")
    pairs = [each.split(" ") if isinstance(each, str) else each for each in merges]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise FormatError(f"{path}: model.merges holds {pair!r:.60}, expected pairs of tokens")
    return [(left, right) for left, right in pairs]


def _scores(texts: list[str], types: list[PieceType], merges: Iterable[tuple[str, str]], path: Path) -> list[float]:
    """Scores under which SentencePiece joins in the order of `merges`. Raises FormatError where none would do."""
    normal = {text for text, type in zip(texts, types, strict=True) if type == PieceType.NORMAL}
    cuts_left = {text: _cuts(text, normal) for text in normal}
    ranks: dict[str, int] = {}
    current = ""
    for left, right in merges:
        if left not in normal or right not in normal or left + right not in normal:
            continue  # it can never apply: SentencePiece joins no control or byte pieces, and neither does BPE here
        if left + right != current and left + right in ranks:
            raise _refusal(path, f"the merges of {left + right!r} do not stand together")
        current = left + right
        ranks.setdefault(current, len(ranks))
        cuts_left[current].discard((left, right))
    for text, cuts in cuts_left.items():
        if cuts:
            raise _refusal(path, f"{text!r} is not made of {' and '.join(map(repr, min(cuts)))} by any merge")
    # Single characters, which nothing makes, go on where the merges end, as in SentencePiece's own files.
    for text in texts:
        if text in normal:
            ranks.setdefault(text, len(ranks))
    return [-float(ranks[text]) if text in normal else 0.0 for text in texts]


def _cuts(text: str, pieces: set[str]) -> set[tuple[str, str]]:
    """The ways to cut `text` into two of `pieces`."""
    cuts = ((text[:position], text[position:]) for position in range(1, len(text)))
    return {(left, right) for left, right in cuts if left in pieces and right in pieces}


def _refusal(path: Path, reason: str) -> FormatError:
    return FormatError(
        f"{path} is no SentencePiece BPE tokenizer with byte fallback, the kind tinyllm reads: {reason}; "
        "put the tokenizer.model beside it if there is one"
    )
