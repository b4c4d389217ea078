"""The storybook's grammar: plots, parsed into steps, lines and slots.

`plots()` reads the text files in `plots/`, written in a notation that a person can read and extend:

    == the lost toy (object: toy, kin: kin)      a plot's name, and its cast: the roles that stay the same

    One {sunny} {morning}, the {object} was gone.    a paragraph is a step of the story, a line one wording of it
    When {name} woke up, {he} could not find
      the {object} anywhere.                         an indented line continues the line above
    -                                                this step may be omitted
    <closing>                                        inserts all lines of a paragraph of plots/shared.txt

A slot names a role of the cast or a class of words; a slot with a class draws a new word at each use. `{a lovely}`
adds the article that fits the word, and a capital, as in `{Soon}`, begins a sentence. Every story has a hero:
`{name}`, `{he}`, `{his}`, `{him}`, `{himself}` and `{boy}` agree with each other. `{kin.he}` agrees with another role.

The first step of every plot names the hero and the object, and the last step names both again.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

from tinyllm.corpus.storybook.words import A_BEFORE_A_VOWEL, AN_BEFORE_A_CONSONANT, FEMININE, PRONOUNS, WORDS

PLOT_FILES = ("home", "friends", "outdoors", "animals")
"""Text files in `plots/`. Their order is part of what a seed means, so a new file goes to the end."""


@dataclass(frozen=True)
class Slot:
    """A hole in a line, with the words that can fill it and the role that decides among them, if any.

    A role's value is an index into `words`: the hero with value 3 is "Emma" in one slot and "she" in another.
    """

    words: tuple[str, ...]
    role: int | None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches any of the words, longest first, so that "teapot" is not read as "tea"."""
        return re.compile("|".join(re.escape(word) for word in sorted(self.meanings, key=len, reverse=True)))

    @cached_property
    def meanings(self) -> dict[str, frozenset[int]]:
        """For each word, the role values that it can stand for: one for a name, half of all values for "she"."""
        return {word: frozenset(i for i, other in enumerate(self.words) if other == word) for word in self.words}


@dataclass(frozen=True)
class Line:
    """One wording of a step: `literals[0]`, `slots[0]`, `literals[1]`, ..., `literals[-1]`; "" omits the step."""

    literals: tuple[str, ...]
    slots: tuple[Slot, ...]

    @cached_property
    def frame(self) -> str:
        """The line as a format for the % operator, the fastest way to fill slots."""
        return "%s".join(self.literals)


@dataclass(frozen=True)
class Plot:
    """The steps of a story in their order, and the class of words of each role; role 0 is the hero."""

    name: str
    cast: tuple[str, ...]
    steps: tuple[tuple[Line, ...], ...]


@cache
def plots() -> tuple[Plot, ...]:
    """Every plot of the storybook."""
    shared = {name: paragraphs[0] for name, paragraphs in _sections(_read("shared"), r"^(<.+>)\n")}
    text = "\n".join(map(_read, PLOT_FILES))
    return tuple(_plot(header, paragraphs, shared) for header, paragraphs in _sections(text, r"^== (.+)\n"))


def _read(name: str) -> str:
    return (files("tinyllm.corpus.storybook") / "plots" / f"{name}.txt").read_text(encoding="utf-8")


def _sections(text: str, header: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Pairs of a header and its paragraphs; a paragraph is a list of lines."""
    unwrapped = re.sub(r"\n +", " ", text)
    _, *parts = re.split(header, unwrapped, flags=re.MULTILINE)
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        yield name, [paragraph.split("\n") for paragraph in body.strip().split("\n\n")]


def _plot(header: str, paragraphs: list[list[str]], shared: dict[str, list[str]]) -> Plot:
    name, _, roles = header.rstrip(")").partition(" (")
    cast = {"name": "child"} | dict(role.split(": ") for role in roles.split(", "))
    steps = [[line for entry in lines for line in shared.get(entry, [entry])] for lines in paragraphs]
    return Plot(name, tuple(cast.values()), tuple(tuple(_line(line, cast) for line in step) for step in steps))


def _line(text: str, cast: dict[str, str]) -> Line:
    literals = re.split(r"\{.*?\}", "" if text == "-" else text)
    return Line(tuple(literals), tuple(_parse_slot(inside, cast) for inside in re.findall(r"\{(.*?)\}", text)))


def _parse_slot(inside: str, cast: dict[str, str]) -> Slot:
    """Parses the text between the braces of a slot, such as "name", "A lovely", "He", "kin.his"."""
    article, _, noun = inside.lower().rpartition(" ")
    owner, _, pronoun = noun.partition(".")
    if noun in PRONOUNS:
        owner, pronoun = "name", noun
    role = list(cast).index(owner) if owner in cast else None
    return _slot(cast.get(owner, owner), role, pronoun, bool(article), inside[0].isupper() or ".H" in inside)


@cache
def _slot(kind: str, role: int | None, pronoun: str, with_article: bool, capital: bool) -> Slot:
    words = WORDS[kind]
    if pronoun:
        words = tuple(PRONOUNS[pronoun] if word in FEMININE[kind] else pronoun for word in words)
    if with_article:
        words = tuple(f"{article_for(word)} {word}" for word in words)
    if capital:
        words = tuple(word[0].upper() + word[1:] for word in words)
    return Slot(words, role)


def article_for(word: str) -> str:
    """ "a" or "an", as the pronunciation of `word` needs it."""
    vowel_sound = word in AN_BEFORE_A_CONSONANT or (word[0] in "aeiou" and word not in A_BEFORE_A_VOWEL)
    return "an" if vowel_sound else "a"
