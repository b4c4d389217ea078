"""Reads Hugging Face's `tokenizer.json` as a Tokenizer, if it is equivalent to a SentencePiece BPE model.

The equivalence is checked. SentencePiece merges any two neighbours whose concatenation is a piece. So every split of a
piece into two pieces must be a merge. All merges of a piece must be adjacent; their order gives the scores. A
`tokenizer.json` with fewer merges, another pre-tokenizer or no byte fallback is refused; `tokenizer.byte_level` reads
those of GPT-2 and Llama 3. Special added
tokens become control pieces, which no text encodes to; other added tokens become user-defined pieces.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.errors import FormatError
from tinyllm.json_file import read_json_object
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import SPACE, Piece, PieceType, Spacing
from tinyllm.tokenizer.proto_writer import write_model_proto
from tinyllm.tokenizer.resizing import MOST_FILLERS, filler_text

PIECE_LIMIT = 512
"""Limit of characters; real pieces have up to 16, and every split of a piece is checked."""
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_MODEL_SETTINGS: dict[str, tuple[object, ...]] = {
    "type": ("BPE",),
    "byte_fallback": (True,),
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "ignore_merges": (None, False),
}


@dataclass(frozen=True)
class AddedToken:
    """A token that Hugging Face adds to a vocabulary and cuts out of a text before anything else."""

    id: int
    text: str
    is_special: bool
    """Whether it stands for no text, such as BOS, a padding token, or a chat's marks."""
    is_normalized: bool
    """Whether it is searched after the text was normalized."""


def read_tokenizer_json(path: Path) -> Tokenizer:
    """The tokenizer in the file `path`, with special tokens from `tokenizer_config.json` in the same folder.

    Raises FormatError if it is damaged, or if SentencePiece would give other ids.
    """
    content, config = read_json_object(path), read_tokenizer_config(path.parent)
    model = content.get("model")
    if not isinstance(model, dict):
        raise FormatError(f"{path} has no model")
    for key, allowed in _MODEL_SETTINGS.items():
        if model.get(key) not in allowed:
            raise _unsupported(path, f"model.{key} is {model.get(key)!r}, expected {allowed[0]!r}")
    prefix, removes, spacing = read_spacing(content, path)
    special = _special_texts(model, config)
    added = read_added_tokens(content.get("added_tokens") or [], path)
    texts = _read_vocabulary(model, added, path)
    control = {token.text for token in added if token.is_special}
    control |= {text for text in special.values() if text in texts}
    user_defined = {token.text for token in added if not token.is_special} - control
    types = [_type(text, id, special["unk"], control, user_defined) for id, text in enumerate(texts)]
    scores = _scores(texts, types, _read_merges(model, path), path)
    ids = {text: id for id, text in enumerate(texts)}
    if special["unk"] not in ids:
        raise FormatError(f"{path}: the token for unknown text, {special['unk']!r}, is not in the vocabulary")
    pieces = [Piece(text, score, type) for text, score, type in zip(texts, scores, types, strict=True)]
    for token in added:
        if token.text in user_defined:
            pieces[token.id] = user_defined_piece(token, prefix=prefix, spacing=spacing)
    proto = write_model_proto(
        pieces,
        unk_id=ids[special["unk"]],
        bos_id=ids.get(special["bos"]),
        eos_id=ids.get(special["eos"]),
        pad_id=ids.get(special["pad"]) if special["pad"] != special["unk"] else None,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=removes,
        spacing=Spacing.WHOLE if spacing == Spacing.SECTIONS and not user_defined else spacing,
        adds_bos=reads_bos(content, config, special["bos"], path),
    )
    return Tokenizer.from_bytes(proto, str(path))


def read_tokenizer_config(directory: Path) -> dict[str, Any]:
    """The content of `tokenizer_config.json`; empty if there is no such file."""
    path = directory / "tokenizer_config.json"
    return read_json_object(path) if path.is_file() else {}


def read_spacing(content: Mapping[str, Any], path: Path) -> tuple[bool, bool, Spacing]:
    """Whether encoding adds a space before a text, whether it removes extra spaces, and the sections with a space."""
    normalizer, splitter = content.get("normalizer"), content.get("pre_tokenizer")
    if normalizer is None and isinstance(splitter, dict):
        if splitter.get("type") == "Metaspace" and splitter.get("split") is False:
            spacings = {"always": Spacing.ALWAYS, "first": Spacing.FIRST, "never": Spacing.SECTIONS}
            scheme = splitter.get("prepend_scheme")
            if splitter.get("replacement") == SPACE and scheme in spacings:
                return scheme != "never", False, spacings[scheme]
    elif splitter is None and isinstance(normalizer, dict):
        steps = normalizer.get("normalizers") if normalizer.get("type") == "Sequence" else [normalizer]
        for prefix in (True, False):
            for removes in (True, False):
                if steps == _normalizing_steps(prefix, removes):
                    return prefix, removes, Spacing.SECTIONS
    raise _unsupported(path, "its normalizer and pre_tokenizer are not those of a SentencePiece model")


def read_added_tokens(listed: Any, path: Path) -> list[AddedToken]:
    """The tokens in an `added_tokens` array.

    Raises FormatError if one is damaged, or includes the spaces around it.
    """
    if not isinstance(listed, list):
        raise FormatError(f"{path}: added_tokens is not an array")
    return [_added_token(token, path) for token in listed]


def _added_token(token: Any, path: Path) -> AddedToken:
    if not isinstance(token, dict) or not isinstance(token.get("content"), str) or not token["content"]:
        raise FormatError(f"{path}: added_tokens holds {token!r:.60}, expected objects with a content")
    text, id = token["content"], token.get("id")
    if type(id) is not int or id < 0:
        raise FormatError(f"{path}: the added token {text!r:.60} has the id {id!r:.60}, expected a whole number")
    is_special = token.get("special") is True
    rules = [rule for rule in ("lstrip", "rstrip", "single_word") if token.get(rule)]
    if rules and not is_special:
        raise _unsupported(path, f"the added token {text!r:.60} includes surrounding text ({', '.join(rules)})")
    return AddedToken(id, text, is_special, token.get("normalized") is True)


def user_defined_piece(token: AddedToken, *, prefix: bool, spacing: Spacing) -> Piece:
    """The piece for an added token that is found in ordinary text.

    A token that Hugging Face searches after normalization is normalized too, with a space before it.
    """
    text = token.text
    if token.is_normalized and spacing == Spacing.SECTIONS:
        text = (SPACE if prefix else "") + text.replace(" ", SPACE)
    return Piece(text, 0.0, PieceType.USER_DEFINED)


def reads_bos(content: Mapping[str, Any], config: Mapping[str, Any], bos: str, path: Path) -> bool:
    """Whether a prompt begins with BOS: by `add_bos_token` if present, else by the post-processor."""
    adds_bos = config.get("add_bos_token")
    if adds_bos is not None:
        if not isinstance(adds_bos, bool):
            raise FormatError(
                f"{path.with_name('tokenizer_config.json')}: add_bos_token is {adds_bos!r:.60}, not true or false"
            )
        return adds_bos
    return _begins_with(content.get("post_processor"), bos)


def _begins_with(processor: Any, bos: str) -> bool:
    """Whether a post-processor, or one in a sequence of them, adds `bos` before a text."""
    if not isinstance(processor, dict):
        return False
    parts = processor.get("processors")
    if processor.get("type") == "Sequence" and isinstance(parts, list):
        return any(_begins_with(part, bos) for part in parts[:8] if isinstance(part, dict) and part != processor)
    single = processor.get("single")
    first = single[0] if isinstance(single, list) and single else None
    special = first.get("SpecialToken") if isinstance(first, dict) else None
    return isinstance(special, dict) and special.get("id") == bos


def _normalizing_steps(prefix: bool, removes: bool) -> list[dict[str, Any]]:
    """The normalizers with the same effect as the two whitespace settings of a SentencePiece model."""

    def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": pattern, "content": content}

    return [
        *([replace({"Regex": r"\A +"}, ""), replace({"Regex": " {2,}"}, " ")] if removes else []),
        *([{"type": "Prepend", "prepend": SPACE}] if prefix else []),
        replace({"String": " "}, SPACE),
        *([replace({"Regex": rf"{SPACE}+\z"}, "")] if removes else []),
    ]


def _special_texts(model: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the unknown, BOS, EOS and padding tokens; empty for a missing one."""
    defaults = {"unk": model.get("unk_token") or "<unk>", "bos": "<s>", "eos": "</s>", "pad": ""}
    texts = {}
    for name, default in defaults.items():
        token = config.get(f"{name}_token", default)
        text = token.get("content") if isinstance(token, dict) else token
        texts[name] = text if isinstance(text, str) else ""
    return texts


def _read_vocabulary(model: Mapping[str, Any], added: list[AddedToken], path: Path) -> list[str]:
    """The text of each id. Ids after the vocabulary that no added token uses are unused rows."""
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict):
        raise FormatError(f"{path}: model.vocab is not an object")
    ids = dict(vocabulary)
    for token in added:
        if ids.setdefault(token.text, token.id) != token.id:
            raise FormatError(f"{path}: the added token {token.text!r:.60} has another id in model.vocab")
    texts = {id: text for text, id in ids.items() if type(id) is int}
    highest = max((id for id in vocabulary.values() if type(id) is int), default=-1)
    last = max(texts, default=-1)
    if len(texts) != len(ids) or any(id not in texts for id in range(min(highest + 1, len(ids) + 1))) or min(texts) < 0:
        raise FormatError(f"{path}: the ids of its {len(ids)} tokens are not 0 to {len(ids) - 1}")
    if last - len(ids) > MOST_FILLERS:
        raise FormatError(f"{path}: an added token has the id {last}, but there are only {len(ids)} tokens")
    longest = max(ids, key=len, default="")
    if len(longest) > PIECE_LIMIT:
        raise FormatError(
            f"{path}: the token {longest[:20]!r}… has {len(longest)} characters, expected at most {PIECE_LIMIT}"
        )
    return [texts.get(id) or filler_text(id) for id in range(last + 1)]


def _type(text: str, id: int, unknown: str, control: set[str], user_defined: set[str]) -> PieceType:
    if text == unknown:
        return PieceType.UNKNOWN
    if text in control or text == filler_text(id):
        return PieceType.CONTROL
    if text in user_defined:
        return PieceType.USER_DEFINED
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
    """Scores with which SentencePiece merges in the order of `merges`. Raises FormatError if there are none."""
    normal = {text for text, type in zip(texts, types, strict=True) if type == PieceType.NORMAL}
    splits_left = {text: _splits(text, normal) for text in normal}
    ranks: dict[str, int] = {}
    current = ""
    for left, right in merges:
        if left not in normal or right not in normal or left + right not in normal:
            continue  # never applies: neither SentencePiece nor this BPE merges control or byte pieces
        if left + right != current and left + right in ranks:
            raise _unsupported(path, f"the merges of {left + right!r} are not adjacent")
        current = left + right
        ranks.setdefault(current, len(ranks))
        splits_left[current].discard((left, right))
    for text, splits in splits_left.items():
        if splits:
            raise _unsupported(path, f"{text!r} has no merge of {' and '.join(map(repr, min(splits)))}")
    # Single characters, which no merge makes, rank after the merges, as in SentencePiece's own files.
    for text in texts:
        if text in normal:
            ranks.setdefault(text, len(ranks))
    return [-float(ranks[text]) if text in normal else 0.0 for text in texts]


def _splits(text: str, pieces: set[str]) -> set[tuple[str, str]]:
    """The ways to split `text` into two of `pieces`."""
    splits = ((text[:position], text[position:]) for position in range(1, len(text)))
    return {(left, right) for left, right in splits if left in pieces and right in pieces}


def _unsupported(path: Path, reason: str) -> FormatError:
    return FormatError(
        f"{path} is not a SentencePiece BPE tokenizer with byte fallback, which tinyllm reads: {reason}; "
        "put the tokenizer.model into its folder if there is one"
    )
