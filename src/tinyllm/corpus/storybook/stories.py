"""The storybook: an embedded corpus of children's stories, written from a seeded grammar.

`write_stories` writes distinct stories, the same ones for a seed on every machine. `is_story` returns whether the
grammar could have written exactly a given text. `is_story` measures a model trained on stories: an accepted sample that
is not in the training set is a new story without a mistake. `tell` and `begins_story` do the same for parts of a story.

All functions use the same plots, so they cannot disagree. A story is one paragraph of ASCII, 60 to 200 words long.
Imports only the standard library.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import combinations

from tinyllm.corpus.storybook.grammar import Line, Plot, plots
from tinyllm.corpus.storybook.words import WORDS

# Far below the number of stories in the grammar (the tests count them), so that repeated draws are rare.
MAX_STORIES = 10_000_000


@dataclass(frozen=True)
class Part:
    """A step of a story as it was told: a line, and the word of each of its slots."""

    line: Line
    fillers: tuple[str, ...]

    @property
    def text(self) -> str:
        """One or more sentences."""
        return self.line.frame % self.fillers

    def replace(self, slot: int, filler: str) -> str:
        """The text with another word in one slot."""
        return self.line.frame % (*self.fillers[:slot], filler, *self.fillers[slot + 1 :])


# The state of reading a text: the position, and the values that each role can still have.
_Values = tuple[frozenset[int], ...]
_State = tuple[int, _Values]


def write_stories(num_stories: int, seed: int) -> Iterator[str]:
    """`num_stories` distinct stories, the same for a `seed` on every machine; a longer list extends a shorter one.

    Raises ValueError, before the first story, for a `num_stories` outside 1 .. `MAX_STORIES`.
    """
    if not 1 <= num_stories <= MAX_STORIES:
        raise ValueError(f"num_stories is {num_stories}; the storybook writes between 1 and {MAX_STORIES} stories")
    return _distinct_stories(num_stories, seed)


def is_story(text: str) -> bool:
    """Whether the grammar could have written exactly this text, to the last letter and space.

    Time is at most linear in the length of a story, for any text: a line matches in one way or not at all.
    """
    return any(_matches(plot, text) for plot in plots())


def begins_story(text: str) -> bool:
    """Whether `text` is exactly the first steps of a story that the grammar could have written."""
    return bool(text) and any(
        position == len(text) and _has_distinct_values(plot.cast, values)
        for plot in plots()
        for states in _read_steps(plot, text)
        for position, values in states
    )


def tell(plot: Plot, draw: Callable[[], float]) -> list[Part]:
    """A story of `plot` in parts, joined by spaces; `draw` returns random numbers in [0, 1)."""
    values = _choose_cast(plot.cast, draw)
    parts = []
    for lines in plot.steps:
        line = lines[int(draw() * len(lines))]
        if line.frame:
            fillers = [
                slot.words[int(draw() * len(slot.words)) if slot.role is None else values[slot.role]]
                for slot in line.slots
            ]
            parts.append(Part(line, tuple(fillers)))
    return parts


def _distinct_stories(num_stories: int, seed: int) -> Iterator[str]:
    # Only random() is called: Python guarantees that its sequence for a seed never changes.
    draw = random.Random(seed).random
    seen: set[bytes] = set()
    while len(seen) < num_stories:
        story = _tell(plots()[int(draw() * len(plots()))], draw)
        # Eight bytes a story and, unlike hash(), the same in every process.
        fingerprint = blake2b(story.encode(), digest_size=8).digest()
        if fingerprint not in seen:
            seen.add(fingerprint)
            yield story


def _tell(plot: Plot, draw: Callable[[], float]) -> str:
    return " ".join(part.text for part in tell(plot, draw))


def _choose_cast(cast: tuple[str, ...], draw: Callable[[], float]) -> list[int]:
    """A value for each role; two roles of one class never share a value, so Lily's friend is not called Lily."""
    values: list[int] = []
    for role, kind in enumerate(cast):
        taken = [values[other] for other in range(role) if cast[other] == kind]
        free = [value for value in range(len(WORDS[kind])) if value not in taken]
        values.append(free[int(draw() * len(free))])
    return values


def _matches(plot: Plot, text: str) -> bool:
    *_, states = _read_steps(plot, text)
    return any(position == len(text) and _has_distinct_values(plot.cast, values) for position, values in states)


def _read_steps(plot: Plot, text: str) -> Iterator[set[_State]]:
    """The possible states after each step of `plot`; ends with the first empty set."""
    states: set[_State] = {(0, tuple(map(_all_values, plot.cast)))}
    for lines in plot.steps:
        states = {next_state for state in states for line in lines if (next_state := _read(line, text, *state))}
        yield states
        if not states:
            return


@cache
def _all_values(kind: str) -> frozenset[int]:
    return frozenset(range(len(WORDS[kind])))


def _read(line: Line, text: str, position: int, values: _Values) -> _State | None:
    """The state after `line`, or None if the text does not continue with it."""
    if not line.frame:
        return position, values
    opening = line.literals[0] if position == 0 else " " + line.literals[0]
    if not text.startswith(opening, position):
        return None
    position += len(opening)
    for slot, literal in zip(line.slots, line.literals[1:], strict=True):
        match = slot.pattern.match(text, position)
        if match is None or not text.startswith(literal, match.end()):
            return None
        if slot.role is not None:
            possible = values[slot.role] & slot.meanings[match[0]]
            if not possible:
                return None
            values = (*values[: slot.role], possible, *values[slot.role + 1 :])
        position = match.end() + len(literal)
    return position, values


def _has_distinct_values(cast: tuple[str, ...], values: _Values) -> bool:
    """Whether no two roles of one class have to share a value."""
    return all(
        kind != other or len(first | second) > 1
        for (kind, first), (other, second) in combinations(zip(cast, values, strict=True), 2)
    )
