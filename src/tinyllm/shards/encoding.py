"""Texts to token ids, a batch at a time: what every process that encodes does. `parallel` shares batches out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinyllm.corpus.documents import Document
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.word_cache import ID_BYTES, cached_encoder

Ids = npt.NDArray[np.uint32]
Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Documents that are encoded in one go."""

    documents: list[Document]
    are_validation: list[bool]

    @property
    def texts(self) -> list[str]:
        return [document.text for document in self.documents]


@dataclass(frozen=True)
class EncodedTexts:
    """The ids of all texts as one array, which travels, is checked and is written at once."""

    ids: Ids
    lengths: Lengths
    """How many of the ids are each text's."""
    text_bytes: Lengths
    """Of each text in UTF-8."""

    def split(self) -> list[Ids]:
        """The ids of each text."""
        return np.split(self.ids, np.cumsum(self.lengths[:-1]))


class Encoder:
    """Encodes documents, and remembers the ids of words from one call to the next."""

    def __init__(self, tokenizer: Tokenizer, append_eos: bool = False) -> None:
        self.tokenizer = tokenizer
        self._encode = cached_encoder(tokenizer)
        ends = np.array(tokenizer.encode("", bos=True, eos=append_eos), dtype=np.uint32)
        self._before, self._after = ends[:1].tobytes(), ends[1:].tobytes()

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """The ids of each text, BOS first, and EOS last if asked. Raises InputError as `Tokenizer.encode` does."""
        all_ids = [self._before + self._encode(text) + self._after for text in texts]
        lengths = np.array([len(ids) for ids in all_ids], dtype=np.int64) // ID_BYTES
        text_bytes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
        return EncodedTexts(np.frombuffer(b"".join(all_ids), dtype=np.uint32), lengths, text_bytes)
