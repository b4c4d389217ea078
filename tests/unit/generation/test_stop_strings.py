"""Stop strings against the definition: cut the whole text at the stop that is whole first."""

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.generation.stop_strings import StopStrings


def cut(text: str, stops: list[str]) -> str:
    """The definition: the shortest prefix of the text that ends with a stop, without that stop."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


@given(
    pieces=st.lists(st.text("ab.", max_size=4), max_size=12),
    stops=st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3),
)
def test_the_text_is_cut_wherever_the_pieces_end(pieces: list[str], stops: list[str]) -> None:
    scanner = StopStrings(stops)
    text = "".join([scanner.push(piece) for piece in pieces]) + ("" if scanner.found else scanner.finish())
    assert text == cut("".join(pieces), stops)
    assert scanner.found == any(stop in "".join(pieces) for stop in stops)


def test_the_beginning_of_a_stop_is_held_back_until_it_is_clear() -> None:
    scanner = StopStrings(["The end"])
    assert scanner.push("so. Th") == "so. "
    assert scanner.push("e ") == ""
    assert scanner.push("fox") == "The fox"
    assert scanner.push(" The") == " "
    assert scanner.finish() == "The"


def test_nothing_comes_after_a_stop() -> None:
    scanner = StopStrings(["END"])
    assert scanner.push("aENDb") == "a"
    assert scanner.found
    assert scanner.push("more") == ""


def test_an_empty_stop_stops_nothing() -> None:
    assert StopStrings([""]).push("text") == "text"
