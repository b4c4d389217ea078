"""HTML for notebooks: escaped, without scripts and style sheets, and whole."""

import math
import re

import pytest

from page_reader import HOSTILE, check
from tinyllm import markup


@pytest.mark.parametrize("text", HOSTILE)
def test_every_text_is_escaped(text: str) -> None:
    assert text in check(markup.shaded_text([(text, -1.0)], [text], text)).text
    assert check(markup.plain_text([text, "b"])).text == f"{text}b"
    assert check(markup.table([(text, text)])).text == text * 2
    assert check(markup.line(text)).text == text
    assert text in check(markup.histogram([0, 1], [3], text)).text


def test_the_unlikelier_a_token_the_darker_its_shade() -> None:
    def opacity(nats: float) -> float:
        found = re.search(r",([\d.]+)\)", markup.shade(nats))
        assert found is not None
        return float(found[1])

    shades = [opacity(math.log(part)) for part in (1, 0.5, 0.1, 0.01, 0.001, 1e-9)]
    assert shades == sorted(shades)
    assert shades[0] == 0
    assert shades[-1] == markup.DARKEST
    assert opacity(0.1) == 0  # rounding can give a probability above 1


def test_the_tokens_of_one_character_are_one_piece() -> None:
    pieces = [("a", -1.0), ("", -0.5), ("", -0.25), ("é", -0.25), ("b", None), ("", -3.0)]
    assert markup.joined(pieces) == [("a", -1.0), ("é", -1.0), ("b", None)]


def test_probabilities_have_two_digits() -> None:
    assert [markup.show_probability(math.log(part)) for part in (1, 0.123, 0.000031)] == ["100 %", "12 %", "0.0031 %"]
