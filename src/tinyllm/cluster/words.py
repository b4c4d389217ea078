"""Words of any language by one rule; datatrove's tokenizers of words need packages and data files."""

import re

from datatrove.utils.word_tokenizers import WordTokenizer

_WORD = re.compile(r"[^\W\u2e80-\u9fff\uac00-\ud7af]+|[\u2e80-\u9fff\uac00-\ud7af]")


class Words(WordTokenizer):  # type: ignore[misc]
    """Splits any language into words, and Chinese, Japanese and Korean into characters; needs no data files."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """The lines of a text."""
        return text.splitlines()

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """The spans of the words."""
        return [match.span() for match in _WORD.finditer(text)]
