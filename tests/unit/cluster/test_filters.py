"""Filters by name, and the words that tell one filter from another in the recipe of shards."""

import pytest

pytest.importorskip("datatrove", reason="needs tinyllm[cluster]")

from datatrove.data import Document
from datatrove.pipeline.filters import GopherQualityFilter, LambdaFilter, RegexFilter

from tinyllm.cluster.filters import PLAIN, in_words, make_filter


def test_equal_words_stand_for_equal_filters() -> None:
    """Patterns, sets and functions are settings too: other ones would take the parts of these for their own."""
    steps = [
        RegexFilter("a"),
        RegexFilter("b"),
        GopherQualityFilter(),
        GopherQualityFilter(stop_words=["und"]),
        GopherQualityFilter(max_doc_words=9),
        LambdaFilter(lambda document: len(document.text) > 1),
        LambdaFilter(lambda document: len(document.text) > 2),
    ]
    assert len({in_words(step) for step in steps}) == len(steps)
    assert in_words(RegexFilter("a")) == in_words(RegexFilter("a"))
    assert in_words(GopherQualityFilter()) == in_words(GopherQualityFilter())


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_filters_by_name_need_no_data_files(name: str) -> None:
    step = make_filter(name)
    for text in ("Too short.", "The same words. " * 500, "短い文。"):
        result = step.filter(Document(text, "1"))
        assert (result[0] if isinstance(result, tuple) else result) in (True, False)


def test_gopher_keeps_prose_and_drops_what_is_short() -> None:
    prose = "The fox and the hen went to the old mill, and that was the end of their long friendship. " * 4
    step = make_filter("gopher-quality")
    assert step.filter(Document(prose, "1")) is True
    assert step.filter(Document("Too short.", "2"))[0] is False
