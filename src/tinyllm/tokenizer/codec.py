"""Encodes text to token ids and decodes ids to text: SentencePiece behind one class.

Training is in `training`, other file formats in `files`, the decoder for streams in `stream_decoder`.
"""

import copy
import dataclasses
import hashlib
import re
import struct
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Self

from sentencepiece import SentencePieceProcessor

from tinyllm.arguments import as_text, as_whole_number, wrong_type
from tinyllm.errors import ArtifactError, FormatError, InputError
from tinyllm.storage.remote.fetch import fetch
from tinyllm.tokenizer.model_proto import MODEL_LIMIT_BYTES, SPACE, ModelProto, Piece, PieceType, Spacing, parse_model
from tinyllm.tokenizer.proto_writer import marked_bos, without_prefix
from tinyllm.tokenizer.stream_decoder import StreamDecoder

MODEL_NAME = "tokenizer.model"


class Tokenizer:
    """A SentencePiece BPE tokenizer; its ids are SentencePiece's for every text.

    A tokenizer from a Hugging Face directory or a GGUF file may first cut user-defined pieces out of a text.
    transformers and llama.cpp do the same; `proto.spacing` sets the rule.
    """

    def __init__(self, model_proto: bytes, name: str) -> None:
        """Parses the bytes of a `.model` file; `name` is for messages. Raises FormatError if they are damaged."""
        self.name = name
        self.model_proto = model_proto
        self.proto: ModelProto = parse_model(model_proto, name)
        try:
            self._processor = SentencePieceProcessor(model_proto=model_proto)
        except RuntimeError as error:
            raise FormatError(f"{name} is not a usable SentencePiece model: {' '.join(str(error).split())}") from None
        if self._processor.get_piece_size() != len(self.proto.pieces):
            raise FormatError(f"{name} is damaged: SentencePiece finds another number of pieces than the file lists")
        self.end_ids: frozenset[int] = frozenset(id for id in (self.bos_id, self.eos_id) if id is not None)
        """Tokens that end a text: BOS and EOS, unless the model's files name other tokens."""

    @classmethod
    def from_bytes(cls, model_proto: bytes, name: str) -> Self:
        """A tokenizer from the bytes of a `.model` file."""
        return cls(model_proto, name)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A tokenizer from a `.model` file, or from a directory with a `tokenizer.model` or one other `.model`.

        Raises InputError if there is none, FormatError or ArtifactError if it is damaged.
        """
        path = fetch(path)
        file = _model_in(path) if path.is_dir() else path
        if not file.is_file():
            raise InputError(
                f"{file} does not exist", hint="make a tokenizer with: `train_tokenizer(FILES, output=DIR)`"
            )
        try:
            with file.open("rb") as opened:
                content = opened.read(MODEL_LIMIT_BYTES + 1)
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from None
        if file.name == MODEL_NAME:
            _check_manifest(path, content)
        return cls(content, str(file))

    def with_rules(self, *, adds_bos: bool | None = None, end_ids: Iterable[int] | None = None) -> Self:
        """A copy with another rule for BOS before prompts and other end tokens; None keeps a rule."""
        changed = copy.copy(self)
        if end_ids is not None:
            changed.end_ids = frozenset(end_ids)
        if adds_bos is not None and adds_bos != self.proto.adds_bos:
            changed.model_proto = marked_bos(self.model_proto, adds_bos)
            changed.proto = dataclasses.replace(self.proto, adds_bos=adds_bos)
        return changed

    @property
    def files(self) -> dict[str, bytes]:
        """The files that hold the tokenizer: name -> content."""
        return {MODEL_NAME: self.model_proto}

    @property
    def vocab_size(self) -> int:
        """The number of token ids, which run from 0 to `vocab_size - 1`."""
        return len(self.proto.pieces)

    @property
    def pieces(self) -> list[Piece]:
        """Text, float32 score and type of each id."""
        return self.proto.pieces

    @cached_property
    def bos_id(self) -> int | None:
        """Id of the token before a document; None if the tokenizer has none."""
        return _present(self._processor.bos_id())

    @cached_property
    def eos_id(self) -> int | None:
        """Id of the token after a document; None if the tokenizer has none."""
        return _present(self._processor.eos_id())

    @cached_property
    def pad_id(self) -> int | None:
        """Id of the padding token; None if the tokenizer has none."""
        return _present(self._processor.pad_id())

    @cached_property
    def unk_id(self) -> int:
        """Id of the token for text that no other piece covers; with byte fallback it never occurs."""
        return int(self._processor.unk_id())

    @property
    def begins_with_bos(self) -> bool:
        """Whether the model expects BOS before a prompt."""
        return self.bos_id is not None and self.proto.adds_bos

    @cached_property
    def encodes_by_pieces_alone(self) -> bool:
        """Whether pieces and the two whitespace settings decide all ids, with nothing cut out of a text first."""
        has_cuts = any(piece.type == PieceType.USER_DEFINED for piece in self.pieces)
        return not has_cuts and self.proto.spacing in (Spacing.WHOLE, Spacing.SECTIONS)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the texts, scores and types of all pieces; equal vocabularies from different files agree."""
        digest = hashlib.sha256()
        for piece in self.pieces:
            text = piece.text.encode()
            digest.update(struct.pack("<I", len(text)) + text + struct.pack("<fB", piece.score, piece.type))
        return digest.hexdigest()

    def encode(self, text: str, bos: bool = False, eos: bool = False, *, allow_special: bool = False) -> list[int]:
        """The token ids of `text`, with BOS before and EOS after it on request.

        Control pieces such as `<s>` in `text` are encoded as ordinary characters. With `allow_special` they are encoded
        as their own ids; use that for trusted text, such as a chat template, and not for a user's text.
        Raises InputError if `text` is not valid Unicode (a lone surrogate) or the tokenizer lacks the requested token,
        and ConfigError if it is no text.
        """
        as_text(text, "text")
        try:
            ids = self._encode_sections(text, self._all_cuts if allow_special else self._cuts)
        except (UnicodeEncodeError, RuntimeError):
            # SentencePiece's error for text that is not UTF-8 differs by version; this one is stable.
            check_unicode(text)
            raise
        before = [self._required(self.bos_id, "BOS")] if bos else []
        after = [self._required(self.eos_id, "EOS")] if eos else []
        return before + ids + after

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without control tokens. Raises InputError or ConfigError as `check_id`."""
        text: str = self._processor.decode([self.check_id(id) for id in as_iterable(ids)])
        return text

    def stream(self) -> StreamDecoder:
        """A decoder that accepts one id at a time."""
        return StreamDecoder(self)

    def num_tokens(self, text: str) -> int:
        """The number of tokens of `text`, without BOS and EOS."""
        return len(self.encode(text))

    def id_to_piece(self, id: int) -> str:
        """The text of a piece in the vocabulary, such as `▁the` or `<0x0A>`."""
        return self.pieces[self.check_id(id)].text

    def piece_bytes(self, id: int) -> bytes:
        """The bytes that the token decodes to: ` the` for `▁the`, one byte for a byte piece, none for BOS."""
        piece = self.pieces[self.check_id(id)]
        match piece.type:
            case PieceType.CONTROL:
                return b""
            case PieceType.UNKNOWN:
                return self.proto.unk_surface.encode()
            case PieceType.BYTE:
                return bytes([int(piece.text[3:5], 16)])
        return piece.text.replace(SPACE, " ").encode()

    def check_id(self, id: int) -> int:
        """`id` as an int. Raises InputError if the vocabulary has no such id, ConfigError if it is no whole number."""
        if not 0 <= as_whole_number(id, "id") < self.vocab_size:
            raise InputError(
                f"token id {id} is out of range: {self.name} has {self.vocab_size} tokens, 0 to {self.vocab_size - 1}"
            )
        return int(id)

    @cached_property
    def _cuts(self) -> "re.Pattern[str] | None":
        """Matches the user-defined pieces to cut out of every text; None if SentencePiece finds them itself."""
        if self.proto.spacing == Spacing.WHOLE:
            return None
        return _any_of(piece.text for piece in self.pieces if _is_cut_out(piece))

    @cached_property
    def _all_cuts(self) -> "re.Pattern[str] | None":
        """Matches the pieces of `_cuts` and the control pieces."""
        by_us = self.proto.spacing != Spacing.WHOLE
        return _any_of(
            piece.text for piece in self.pieces if piece.type == PieceType.CONTROL or (by_us and _is_cut_out(piece))
        )

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {piece.text: id for id, piece in enumerate(self.pieces)}

    @cached_property
    def _bare_processor(self) -> SentencePieceProcessor:
        """A processor that adds no space before the text."""
        return SentencePieceProcessor(model_proto=without_prefix(self.model_proto))

    def _encode_sections(self, text: str, cuts: "re.Pattern[str] | None") -> list[int]:
        """The ids of the pieces that `cuts` matches in `text` and of the sections between them."""
        if cuts is None:
            return self._encode_section(text, is_first=True)
        ids: list[int] = []
        end = 0
        for match in cuts.finditer(text):
            ids += self._encode_section(text[end : match.start()], is_first=end == 0)
            ids.append(self._ids[match[0]])
            end = match.end()
        return ids + self._encode_section(text[end:], is_first=end == 0)

    def _encode_section(self, text: str, *, is_first: bool) -> list[int]:
        spacing = self.proto.spacing
        begins_bare = spacing in (Spacing.FIRST, Spacing.ALWAYS) and text.startswith((" ", SPACE))
        bare = begins_bare or (spacing == Spacing.FIRST and not is_first)
        ids: list[int] = (self._bare_processor if bare else self._processor).encode(text)
        return ids

    def _required(self, id: int | None, token: str) -> int:
        if id is None:
            raise InputError(f"{self.name} has no {token} token")
        return id


def _is_cut_out(piece: Piece) -> bool:
    """Whether a piece is found in the original text; a piece with ▁ is found after spaces became ▁."""
    return piece.type == PieceType.USER_DEFINED and not piece.text.startswith(SPACE)


def _any_of(texts: Iterable[str]) -> "re.Pattern[str] | None":
    """A pattern that matches the longest of `texts` at the leftmost position; None if there are no texts."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def check_unicode(text: str) -> None:
    """Raises InputError if `text` has a lone surrogate, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {error.start} of the text is the lone surrogate U+{ord(text[error.start]):04X}, "
            "which is half a character; remove it"
        ) from None


def as_iterable(ids: Iterable[int]) -> Iterable[int]:
    """`ids`. Raises ConfigError if they are no collection."""
    if isinstance(ids, Iterable):
        return ids
    raise wrong_type("ids", ids, "a list of token ids")


def _present(id: int) -> int | None:
    return None if id < 0 else int(id)


def _model_in(directory: Path) -> Path:
    """The path of `tokenizer.model` in a directory, or of its only `.model` file."""
    if (directory / MODEL_NAME).exists():
        return directory / MODEL_NAME
    models = sorted(directory.glob("*.model"))
    return models[0] if len(models) == 1 else directory / MODEL_NAME


def _check_manifest(directory: Path, content: bytes) -> None:
    """Raises ArtifactError if the manifest of `directory` lists another `tokenizer.model`."""
    from tinyllm import storage  # a worker gets the model as bytes and starts faster without this import

    if not (directory / storage.MANIFEST_NAME).exists():
        return
    entry = storage.find_entry(directory, MODEL_NAME)
    if entry is not None and entry.sha256 != hashlib.sha256(content).hexdigest():
        raise ArtifactError(f"{directory / MODEL_NAME} is damaged: its SHA-256 is not the one in the manifest")
