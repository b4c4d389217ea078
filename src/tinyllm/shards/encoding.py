"""Texts to token ids, a batch at a time: what every process that encodes does. `parallel` shares batches out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from tinyllm.errors import FormatError
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.word_cache import ID_BYTES, cached_encoder

if TYPE_CHECKING:
    from tinyllm.corpus.documents import Document  # a helper process, which reads none, starts faster without

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Lengths = npt.NDArray[np.int64]
UINT16_IDS = 2**16


def dtype_for(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The smallest type that holds every id of a vocabulary."""
    return "uint16" if vocab_size <= UINT16_IDS else "uint32"


@dataclass(frozen=True)
class Batch:
    """Documents that are encoded in one go."""

    documents: list["Document"]
    are_validation: list[bool]

    @property
    def texts(self) -> list[str]:
        return [document.text for document in self.documents]


@dataclass(frozen=True)
class EncodedTexts:
    """The ids of all texts as one array, which travels and is written at once."""

    ids: Tokens
    """In the type of `dtype_for`."""
    lengths: Lengths
    """How many of the ids are each text's."""
    text_bytes: Lengths
    """Of each text in UTF-8."""

    def split(self) -> list[Tokens]:
        """The ids of each text."""
        return [self.ids[start:end] for start, end in pairwise([0, *np.cumsum(self.lengths)])]


class Encoder:
    """Encodes documents, and remembers the ids of words from one call to the next."""

    def __init__(self, tokenizer: Tokenizer, append_eos: bool = False) -> None:
        self.tokenizer = tokenizer
        self._encode = cached_encoder(tokenizer)
        ends = np.array(tokenizer.encode("", bos=True, eos=append_eos), dtype=np.uint32)
        self._before, self._after = ends[:1].tobytes(), ends[1:].tobytes()

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """The ids of each text, BOS first, and EOS last if asked.

        Raises InputError as `Tokenizer.encode` does, FormatError where the tokenizer gives an id that it has not.
        """
        all_ids = [self._before + self._encode(text) + self._after for text in texts]
        lengths = np.array([len(ids) for ids in all_ids], dtype=np.int64) // ID_BYTES
        text_bytes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
        ids = np.frombuffer(b"".join(all_ids), dtype=np.uint32)
        vocab_size, largest = self.tokenizer.vocab_size, ids.max()
        if largest >= vocab_size:
            raise FormatError(f"{self.tokenizer.name} gave id {largest}, out of its own range of {vocab_size}")
        return EncodedTexts(ids.astype(dtype_for(vocab_size)), lengths, text_bytes)
