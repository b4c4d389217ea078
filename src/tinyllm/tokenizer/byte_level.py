"""Byte-level BPE tokenizers (Radford et al. 2019), as of GPT-2, Llama 3 and SmolLM, by the library `tokenizers`.

The files are Hugging Face's: `tokenizer.json` gives the ids, `tokenizer_config.json` names the special tokens. Each of
256 printable characters in a piece stands for a byte. Tokens that the file marks as special become control pieces,
other added tokens user-defined pieces.

Training and other formats of tokenizers are in other modules; `opening` finds the kind of a tokenizer.
"""

import codecs
import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tinyllm.arguments import as_text
from tinyllm.errors import FormatError, InputError
from tinyllm.json_file import parse_json_object
from tinyllm.tokenizer.codec import Tokenizer, as_iterable, check_unicode
from tinyllm.tokenizer.model_proto import ModelProto, Piece, PieceType
from tinyllm.tokenizer.stream_decoder import StreamDecoder

if TYPE_CHECKING:
    import tokenizers

JSON_NAME, CONFIG_NAME = "tokenizer.json", "tokenizer_config.json"
FILE_LIMIT_BYTES = 64 * 2**20
ID_LIMIT = 2**24
_KINDS = ("bos", "eos", "pad", "unk")
_OWN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of transformers that use `tokenizer.json` unchanged; others build a pre-tokenizer of their own."""


def _bytes_of_characters() -> dict[str, int]:
    """The byte behind each character of a piece: itself if it is printable Latin-1, else a character from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTES = _bytes_of_characters()


def is_byte_level(content: Mapping[str, Any]) -> bool:
    """Whether the content of a `tokenizer.json` writes bytes as other characters."""
    parts = [content.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")]
    return '"type": "ByteLevel"' in json.dumps(parts)


class ByteLevelTokenizer(Tokenizer):
    """A byte-level BPE tokenizer; its ids are those of `tokenizers`, and so transformers', for every text."""

    def __init__(self, files: Mapping[str, bytes], name: str) -> None:
        """Parses `files`, name -> content, of which `tokenizer.json` is needed; `name` is for messages.

        Raises FormatError if they are damaged or of another kind, InputError if `tokenizers` is not installed.
        """
        self.name = name
        content = _parse(files[JSON_NAME], name)
        _check_kind(content, name)
        self._json = json.dumps(content | {"truncation": None, "padding": None}, ensure_ascii=False)
        self._config = _parse(files.get(CONFIG_NAME, b"{}"), f"{CONFIG_NAME} of {name}")
        # A text's own `<|endoftext|>` is ordinary text, as in SentencePiece.
        self._plain = _build(self._json, name)
        self._plain.encode_special_tokens = True
        self._special_ids = {kind: self._find(kind) for kind in _KINDS}
        self.proto = ModelProto(
            pieces=_pieces(content, name),
            byte_fallback=False,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            unk_surface="",
            adds_bos=self._reads_bos(),
        )
        self.end_ids = frozenset(id for id in (self.bos_id, self.eos_id) if id is not None)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A tokenizer from a directory, or from a `tokenizer.json` and the `tokenizer_config.json` beside it.

        Raises InputError if there is none, FormatError if it is damaged or of another kind.
        """
        path = Path(path)
        file = path / JSON_NAME if path.is_dir() else path
        found = {JSON_NAME: file, CONFIG_NAME: file.with_name(CONFIG_NAME)}
        if not file.is_file():
            raise InputError(f"{file} does not exist")
        return cls({name: each.read_bytes() for name, each in found.items() if each.is_file()}, str(file))

    @property
    def files(self) -> dict[str, bytes]:
        """The files that hold the tokenizer: name -> content."""
        return self.files_of_model(None)

    def files_of_model(self, context_length: int | None) -> dict[str, bytes]:
        """As `files`, for the directory of a model with this context length in tokens."""
        config = self._config | ({} if context_length is None else {"model_max_length": context_length})
        if config.get("tokenizer_class") not in _OWN_CLASSES:
            config["tokenizer_class"] = _OWN_CLASSES[0]
        return {
            JSON_NAME: (self._json + "\n").encode(),
            CONFIG_NAME: (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode(),
        }

    @property
    def model_proto(self) -> bytes:  # type: ignore[override]
        """Raises InputError: there is no SentencePiece model."""
        raise InputError(f"{self.name} is a byte-level BPE tokenizer, which a SentencePiece file cannot store")

    def with_rules(self, *, adds_bos: bool | None = None, end_ids: Iterable[int] | None = None) -> Self:
        """A copy with another rule for BOS before prompts and other end tokens; None keeps a rule."""
        changed = copy.copy(self)
        if end_ids is not None:
            changed.end_ids = frozenset(end_ids)
        if adds_bos is not None and adds_bos != self.proto.adds_bos:
            changed._config = self._config | {"add_bos_token": adds_bos}
            changed.proto = dataclasses.replace(self.proto, adds_bos=adds_bos)
        return changed

    def with_fillers(self, texts: Iterable[str]) -> Self:
        """A copy with a special token for each of `texts` after the last id: rows of a model without a token."""
        content = json.loads(self._json)
        content["added_tokens"] = [
            *(content.get("added_tokens") or []),
            *(added_token(text, id, special=True) for id, text in enumerate(texts, start=self.vocab_size)),
        ]
        return type(self)(self.files | {JSON_NAME: json.dumps(content).encode()}, self.name).with_rules(
            end_ids=self.end_ids
        )

    @property
    def bos_id(self) -> int | None:
        """Id of the token before a document; None if the tokenizer has none."""
        return self._special_ids["bos"]

    @property
    def eos_id(self) -> int | None:
        """Id of the token after a document; None if the tokenizer has none."""
        return self._special_ids["eos"]

    @property
    def pad_id(self) -> int | None:
        """Id of the padding token; None if the tokenizer has none."""
        return self._special_ids["pad"]

    @property
    def unk_id(self) -> int:
        """Id of the token for unknown text, which never occurs; 0 if the tokenizer names none."""
        return self._special_ids["unk"] or 0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all of `tokenizer.json` that decides ids; the same after a copy in another format."""
        content = json.loads(self._json)
        merges = [each.split(" ") if isinstance(each, str) else each for each in content["model"].get("merges", [])]
        decisive = {
            "pieces": [(piece.text, int(piece.type)) for piece in self.pieces],
            "merges": merges,
            "ignore_merges": content["model"].get("ignore_merges") is True,
            "normalizer": content.get("normalizer"),
            "pre_tokenizer": without_offsets(content.get("pre_tokenizer")),
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def encode(self, text: str, bos: bool = False, eos: bool = False, *, allow_special: bool = False) -> list[int]:
        """The token ids of `text`, as `Tokenizer.encode`; added tokens that are not special are found in any text."""
        check_unicode(as_text(text, "text"))
        with _refused_by_library(self.name):
            encoding = (self._special if allow_special else self._plain).encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        before = [self._required(self.bos_id, "BOS")] if bos else []
        after = [self._required(self.eos_id, "EOS")] if eos else []
        return before + ids + after

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` without control tokens, with U+FFFD for bytes that are no text. Errors as its base."""
        return b"".join(map(self.piece_bytes, as_iterable(ids))).decode(errors="replace")

    def stream(self) -> StreamDecoder:
        """A decoder that accepts one id at a time."""
        return ByteStreamDecoder(self)

    def piece_bytes(self, id: int) -> bytes:
        """The bytes that the token decodes to: ` the` for `Ġthe`, none for a control token."""
        piece = self.pieces[self.check_id(id)]
        if piece.type == PieceType.CONTROL:
            return b""
        try:
            return bytes(BYTES[character] for character in piece.text)
        except KeyError:
            return piece.text.encode()  # an added token, with a character that stands for no byte

    @cached_property
    def _special(self) -> "tokenizers.Tokenizer":
        """The tokenizer that also finds special tokens in a text."""
        return _build(self._json, self.name)

    def _find(self, kind: str) -> int | None:
        """The id of a special token that the configuration names."""
        token = self._config.get(f"{kind}_token")
        text = token.get("content") if isinstance(token, dict) else token
        return self._plain.token_to_id(text) if isinstance(text, str) else None

    def _reads_bos(self) -> bool:
        """Whether a prompt begins with BOS: by `add_bos_token`, or else as `tokenizers` adds it to an empty text."""
        adds_bos = self._config.get("add_bos_token")
        if isinstance(adds_bos, bool):
            return adds_bos
        with _refused_by_library(self.name):
            empty: list[int] = self._plain.encode("", add_special_tokens=True).ids
        return self.bos_id is not None and empty[:1] == [self.bos_id]


class ByteStreamDecoder(StreamDecoder):
    """Decodes a token stream piece by piece; bytes are buffered until they form a complete character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The text that `id` completes, possibly empty. Raises InputError if `id` is out of range."""
        return self._decoder.decode(self._tokenizer.piece_bytes(id))

    def finish(self) -> str:
        """One U+FFFD for buffered bytes, because no complete character followed."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


def _parse(content: bytes, name: str) -> dict[str, Any]:
    """The JSON object in `content`."""
    if len(content) > FILE_LIMIT_BYTES:
        raise FormatError(f"{name} has {len(content)} bytes, more than the {FILE_LIMIT_BYTES} of any real tokenizer")
    return parse_json_object(content, name)


def _check_kind(content: Mapping[str, Any], name: str) -> None:
    """Refuses a tokenizer whose ids are not turned into text by their bytes alone."""
    model, decoder = content.get("model"), content.get("decoder")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    steps = decoder.get("decoders") if isinstance(decoder, dict) and decoder.get("type") == "Sequence" else [decoder]
    if kind != "BPE" or not is_byte_level(content):
        raise FormatError(f"{name} is not a byte-level BPE tokenizer: its model is {kind!r:.60}")
    if isinstance(model, dict) and model.get("dropout"):
        raise FormatError(f"{name}: model.dropout is {model['dropout']!r:.60}, so a text has no certain ids")
    if not isinstance(steps, list) or [isinstance(step, dict) and step.get("type") for step in steps] != ["ByteLevel"]:
        raise FormatError(f"{name}: its decoder is not ByteLevel alone, which tinyllm reads")


def _build(content: str, name: str) -> "tokenizers.Tokenizer":
    """The tokenizer of the library. Raises FormatError if it refuses `content`, InputError if it is missing."""
    try:
        import tokenizers
    except ImportError:
        raise InputError(
            f"{name} is a byte-level BPE tokenizer, which needs the package tokenizers: pip install 'tinyllm[bpe]'"
        ) from None
    with _refused_by_library(name):
        return tokenizers.Tokenizer.from_str(content)


@contextmanager
def _refused_by_library(name: str) -> Iterator[None]:
    """Raises FormatError for an error of the library, which raises plain Exception, or panics on a damaged file."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise FormatError(f"{name} is not a tokenizer that can be used: {' '.join(str(error).split())[:200]}") from None


def _pieces(content: Mapping[str, Any], name: str) -> list[Piece]:
    """The piece of each id. Raises FormatError unless the ids are 0 to the number of tokens."""
    vocabulary, added = content["model"].get("vocab"), content.get("added_tokens") or []
    if not isinstance(vocabulary, dict) or not isinstance(added, list):
        raise FormatError(f"{name}: model.vocab or added_tokens is missing")
    types = dict.fromkeys(vocabulary, PieceType.NORMAL)
    ids = dict(vocabulary)
    for token in added:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise FormatError(f"{name}: added_tokens holds {token!r:.60}, expected objects with a content")
        ids[token["content"]] = token.get("id")
        types[token["content"]] = PieceType.CONTROL if token.get("special") is True else PieceType.USER_DEFINED
    texts = {id: text for text, id in ids.items() if type(id) is int and 0 <= id < ID_LIMIT}
    if not texts or len(texts) != len(ids) or max(texts) != len(ids) - 1:
        raise FormatError(f"{name}: the ids of its {len(ids)} tokens are not 0 to {len(ids) - 1}")
    return [Piece(texts[id], 0.0, types[texts[id]]) for id in range(len(ids))]


def without_offsets(value: Any) -> Any:
    """A part of a `tokenizer.json` without the setting `trim_offsets`, which changes no id."""
    if isinstance(value, dict):
        return {key: without_offsets(each) for key, each in value.items() if key != "trim_offsets"}
    return [without_offsets(each) for each in value] if isinstance(value, list) else value


def added_token(text: str, id: int, *, special: bool) -> dict[str, Any]:
    """An entry of `added_tokens`."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": id, "content": text, **flags}
