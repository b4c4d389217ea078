"""Encodes batches of texts to token ids; every encoding process uses this. `parallel` distributes the batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from tinyllm.errors import FormatError
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.word_cache import ID_BYTES, cached_encoder

if TYPE_CHECKING:
    from tinyllm.corpus.documents import Document  # a worker reads no documents and starts faster without it

Item = TypeVar("Item")
Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Lengths = npt.NDArray[np.int64]
UINT16_IDS = 2**16
BATCH_CHARACTERS = 2**20


def dtype_for(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The smallest type that holds every id of the vocabulary."""
    return "uint16" if vocab_size <= UINT16_IDS else "uint32"


@dataclass(frozen=True)
class Batch:
    """Documents that are encoded together."""

    documents: list["Document"]
    are_validation: list[bool] = field(default_factory=list)
    """The split of each document; empty if the documents are labelled after they are encoded."""

    @property
    def texts(self) -> list[str]:
        return [document.text for document in self.documents]


@dataclass(frozen=True)
class EncodedTexts:
    """The ids of several texts as one array, which is sent and written at once."""

    ids: Tokens
    """Concatenated ids of all texts; the type is that of `dtype_for`."""
    lengths: Lengths
    """Number of ids of each text."""
    text_bytes: Lengths
    """UTF-8 bytes of each text."""

    def split(self) -> list[Tokens]:
        """The ids of each text."""
        return [self.ids[start:end] for start, end in pairwise([0, *np.cumsum(self.lengths)])]


def group(items: Iterable[Item], num_characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Groups of about BATCH_CHARACTERS characters; a longer item is in a group that it ends."""
    grouped: list[Item] = []
    size = 0
    for item in items:
        grouped.append(item)
        size += num_characters(item)
        if size >= BATCH_CHARACTERS:
            yield grouped
            grouped, size = [], 0
    if grouped:
        yield grouped


class Encoder:
    """Encodes documents, with a cache of words that is kept between calls."""

    def __init__(self, tokenizer: Tokenizer, append_eos: bool = False) -> None:
        self.tokenizer = tokenizer
        self._encode = cached_encoder(tokenizer)
        ends = np.array(tokenizer.encode("", bos=True, eos=append_eos), dtype=np.uint32)
        self._before, self._after = ends[:1].tobytes(), ends[1:].tobytes()

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """The ids of each text, with BOS first, and EOS last if `append_eos`.

        Raises InputError as `Tokenizer.encode` does, FormatError if an id is outside the vocabulary.
        """
        all_ids = [self._before + self._encode(text) + self._after for text in texts]
        lengths = np.array([len(ids) for ids in all_ids], dtype=np.int64) // ID_BYTES
        text_bytes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
        ids = np.frombuffer(b"".join(all_ids), dtype=np.uint32)
        vocab_size, largest = self.tokenizer.vocab_size, ids.max()
        if largest >= vocab_size:
            raise FormatError(f"{self.tokenizer.name} gave id {largest}, outside its vocabulary of {vocab_size}")
        return EncodedTexts(ids.astype(dtype_for(vocab_size)), lengths, text_bytes)
