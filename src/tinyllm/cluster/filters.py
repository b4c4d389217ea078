"""Filters of datatrove by name, as `tinyllm prepare --filter` takes them.

Filters that count words take `words.Words`, which needs no data files; datatrove's rule for English needs spaCy. Only
`language` needs more packages, and downloads a model.
"""

import re
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
    RegexFilter,
)

from tinyllm.cluster.words import Words
from tinyllm.errors import UsageError

PLAIN: Mapping[str, Callable[[], PipelineStep]] = {
    "c4-quality": lambda: C4QualityFilter(language=Words()),
    "fineweb-quality": lambda: FineWebQualityFilter(language=Words()),
    "gopher-quality": lambda: GopherQualityFilter(language=Words()),
    "gopher-repetition": lambda: GopherRepetitionFilter(language=Words()),
}
WITH_VALUE: Mapping[str, Callable[[str], PipelineStep]] = {
    "language": lambda codes: LanguageFilter(codes.split("+")),
    "regex": RegexFilter,
}
EXAMPLES = [*sorted(PLAIN), "language=en+de", "regex=PATTERN"]


def make_filter(text: str) -> PipelineStep:
    """The filter that a text such as "gopher-quality" or "regex=PATTERN" names. Raises UsageError for any other."""
    name, sign, value = text.partition("=")
    try:
        if name in WITH_VALUE and value:
            return WITH_VALUE[name](value)
        if name in PLAIN and not sign:
            return PLAIN[name]()
    except ImportError as error:
        raise UsageError(f"filters has {name}, which needs more packages: {error}", parameter="filters") from None
    except re.error as error:
        raise UsageError(f"filters has {text!r}, whose pattern is not valid: {error}", parameter="filters") from None
    raise UsageError(f"filters has {text!r}; known are {', '.join(EXAMPLES)}", parameter="filters")


def in_words(step: PipelineStep) -> str:
    """A filter with its settings, for the recipe of the shards: equal words stand for equal filters."""
    settings = {name: _plain(value) for name, value in vars(step).items() if name != "stats"}
    return f"{type(step).__name__}{sorted(settings.items())}"


def _plain(value: Any) -> str:
    """A setting in words that are equal in every process; of other objects, the type alone."""
    if isinstance(value, re.Pattern):
        return f"regex {value.pattern!r} {value.flags}"
    if isinstance(value, set | frozenset):
        return repr(sorted(map(_plain, value)))
    if isinstance(value, list | tuple):
        return repr(list(map(_plain, value)))
    if isinstance(value, dict):
        return repr(sorted((_plain(name), _plain(content)) for name, content in value.items()))
    if isinstance(value, FunctionType):
        code = value.__code__
        return f"{value.__qualname__} {code.co_code.hex()} {[_plain(each) for each in code.co_consts]} {code.co_names}"
    return repr(value) if value is None or isinstance(value, str | int | float) else type(value).__qualname__
