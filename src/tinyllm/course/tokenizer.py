"""The tutorial's `Tokenizer`: `from tokenizer import Tokenizer; Tokenizer('./data/tok4096.model')`.

Names, defaults and results are those of Tiny-LLM's tokenizer.py; `tinyllm.Tokenizer` does the work.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from tinyllm.course.layout import DEFAULT_VOCAB_SIZE, tokenizer_file
from tinyllm.tokenizer.codec import Tokenizer as Codec

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

TOKENIZER_MODEL = f"./{tokenizer_file(DEFAULT_VOCAB_SIZE)}"


class Tokenizer:
    """A SentencePiece tokenizer from a `.model` file, by default `./data/tok4096.model`.

    `n_words` is the number of tokens; `bos_id`, `eos_id` and `pad_id` are ids, or -1 if there is no such token.
    Raises InputError if the file is missing, FormatError if it is damaged.
    """

    def __init__(self, tokenizer_model: str | None = None) -> None:
        self.model_path = tokenizer_model or TOKENIZER_MODEL
        self.codec = Codec.load(self.model_path)
        self.n_words = self.codec.vocab_size
        self.bos_id, self.eos_id, self.pad_id = (
            -1 if id is None else id for id in (self.codec.bos_id, self.codec.eos_id, self.codec.pad_id)
        )

    @cached_property
    def sp_model(self) -> "SentencePieceProcessor":
        """The SentencePiece processor, for functions that this class lacks."""
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(model_proto=self.codec.model_proto)

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        """The ids of `s`, with BOS before and EOS after it on request."""
        return self.codec.encode(s, bos=bos, eos=eos)

    def decode(self, t: Sequence[int]) -> str:
        """The text of the ids `t`; BOS and EOS decode to nothing."""
        return self.codec.decode(t)
