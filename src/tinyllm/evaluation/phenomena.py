"""The ten phenomena of the minimal pairs: each finds the places where one rule of English can be broken in a story.

A rule is one of the sentence (agreement, articles, case) or of the story (names kept, order of events). The idea is
that of BLiMP (Warstadt et al. 2020). `minimal_pairs` checks that the grammar refuses each broken text.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tinyllm.corpus.storybook.grammar import Slot, article_for
from tinyllm.corpus.storybook.stories import Part
from tinyllm.corpus.storybook.words import BOYS, GIRLS, WORDS

Changes = Iterator[tuple[str, str]]
"""Pairs (form, text): the right form at the place of the change, and the text with the wrong form there."""


@dataclass(frozen=True)
class Phenomenon:
    """One rule, and the function that breaks it."""

    name: str
    """The name in reports, and the group of its pairs."""
    steps: range
    """The steps of a story in which the rule is broken; the text ends with that step."""
    forms: tuple[str, ...]
    """The right forms, each in an equal share of the pairs: a model gains nothing by preferring one of them."""
    changes: Callable[[Sequence[Part]], Changes]
    """Every change of the last of the parts told."""


_NUMBER = {"was": "were", "were": "was", "is": "are", "are": "is"}
_UNCLEAR_SUBJECTS = {"I", "it", "you", "You", "lavender", "clover"}
"""After these words, a singular verb in place of a plural one is not clearly wrong: "I wish that it was"."""


def _change_agreement(parts: Sequence[Part]) -> Changes:
    text = parts[-1].text
    for found in re.finditer(r"\b(was|were|is|are)\b", text):
        is_singular = found[0] in ("was", "is")
        if is_singular or not _UNCLEAR_SUBJECTS.intersection(text[: found.start()].split()[-1:]):
            changed = text[: found.start()] + _NUMBER[found[0]] + text[found.end() :]
            yield "singular" if is_singular else "plural", _joined(parts, changed)


def _change_article(parts: Sequence[Part]) -> Changes:
    for slot, filler in enumerate(parts[-1].fillers):
        if found := re.match(r"([Aa])(n?) ", filler):
            wrong = f"{found[1]}{'' if found[2] else 'n'} {filler[found.end() :]}"
            yield "an" if found[2] else "a", _joined(parts, parts[-1].replace(slot, wrong))


_COUNTED = re.compile(r"\b(?:two|three|four|five|ten|Ten) (?:big |bright )?[a-z]+[^\Ws]s\b")
_IRREGULAR = re.compile(r"(s|x|z|ch|sh|y|o|f|fe|mouse|goose|calf|deer)$")


def _change_noun_number(parts: Sequence[Part]) -> Changes:
    part = parts[-1]
    for slot in _described(part):
        if not _IRREGULAR.search(part.fillers[slot]):
            yield "singular", _joined(parts, part.replace(slot, part.fillers[slot] + "s"))
    for found in _COUNTED.finditer(part.text):
        yield "plural", _joined(parts, part.text[: found.end() - 1] + part.text[found.end() :])


def _change_word_order(parts: Sequence[Part]) -> Changes:
    part = parts[-1]
    for slot in _described(part):
        noun, (article, adjective) = part.fillers[slot], part.fillers[slot - 1].split(" ", 1)
        wrong = article_for(noun)
        phrase = f"{wrong.capitalize() if article[0] == 'A' else wrong} {noun} {adjective}"
        yield "adjective", _joined(parts, part.text.replace(f"{article} {adjective} {noun}", phrase, 1))


def _described(part: Part) -> Iterator[int]:
    """The slots of nouns that follow an article with an adjective, as "kite" in "a lovely kite"."""
    for slot in range(1, len(part.fillers)):
        is_phrase = part.line.literals[slot] == " " and re.match(r"An? ", part.fillers[slot - 1], re.IGNORECASE)
        if is_phrase and part.line.slots[slot].words in _THINGS:
            yield slot


_THINGS = {WORDS[kind] for kind in ("toy", "treasure", "clothing", "treat", "instrument", "ride", "tool", "vase")} | {
    WORDS["animal"]
}
_HE, _HIM, _HIS, _SELF, _BOY = (
    frozenset(words.split()) for words in ("he she", "him her", "his her", "himself herself", "boy girl")
)
_OTHER_CASE = {"he": "him", "she": "her", "him": "he"}


def _pronoun(slot: Slot) -> frozenset[str]:
    """Both words of a slot, in small letters, such as {he, she}; other words for a slot of another kind."""
    return frozenset(word.lower() for word in slot.words)


def _change_case(parts: Sequence[Part]) -> Changes:
    for number, (slot, filler) in enumerate(zip(parts[-1].line.slots, parts[-1].fillers, strict=True)):
        pronoun = _pronoun(slot)
        if pronoun in (_HE, _HIM):
            wrong = "she" if pronoun == _HIM and filler == "her" else _OTHER_CASE[filler.lower()]
            changed = parts[-1].replace(number, wrong.capitalize() if filler[0].isupper() else wrong)
            yield "subject" if pronoun == _HE else "object", _joined(parts, changed)


def _change_gender(parts: Sequence[Part]) -> Changes:
    for number, (slot, filler) in enumerate(zip(parts[-1].line.slots, parts[-1].fillers, strict=True)):
        if _pronoun(slot) in (_HE, _HIM, _HIS, _SELF, _BOY):
            (wrong,) = set(slot.words) - {filler}
            form = "feminine" if filler.lower() in ("she", "her", "herself", "girl") else "masculine"
            yield form, _joined(parts, parts[-1].replace(number, wrong))


_PRESENT = {
    past: present
    for present, pasts in {
        "run walk skip hurry hop march race dash trot rush gallop scamper jog sprint": WORDS["ran"],
        "laugh dance clap smile giggle cheer jump twirl sing grin beam chuckle": WORDS["laughed"],
        "sigh frown sniffle weep groan pout sob tremble": WORDS["sighed"],
        "say cry call exclaim shout yell": WORDS["said"],
    }.items()
    for past, present in zip(pasts, present.split(), strict=True)
}
_PLURAL_SUBJECTS = re.compile(r"\b([Tt]hey|both|two|only|people|children)\b[^.!?]*$")


def _change_tense(parts: Sequence[Part]) -> Changes:
    part = parts[-1]
    for slot, filler in enumerate(part.fillers):
        if filler in _PRESENT:
            end = sum(map(len, part.line.literals[: slot + 1])) + sum(map(len, part.fillers[:slot]))
            is_plural = _PLURAL_SUBJECTS.search(part.text[:end])
            verb = _PRESENT[filler]
            yield "past", _joined(parts, part.replace(slot, verb if is_plural else _third_person(verb)))


def _third_person(verb: str) -> str:
    if verb.endswith(("sh", "ch")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("ry") else verb + "s"


def _change_name(parts: Sequence[Part]) -> Changes:
    told = _joined(parts[:-1])
    for number, slot in enumerate(parts[-1].line.slots):
        name = parts[-1].fillers[number]
        if slot.words == WORDS["child"] and name in told:
            others = [other for other in (GIRLS if name in GIRLS else BOYS) if other not in _joined(parts)]
            # The choice depends on the story alone, so that it needs no random numbers.
            yield "name", _joined(parts, parts[-1].replace(number, others[len(told) % len(others)]))


def _change_thing(parts: Sequence[Part]) -> Changes:
    told = _joined(parts[:-1])
    for number, slot in enumerate(parts[-1].line.slots):
        thing = parts[-1].fillers[number]
        if slot.role is not None and slot.words in _THINGS | _OTHER_ROLES and thing in told:
            num_spaces = thing.count(" ")
            others = [other for other in slot.words if other not in told and other.count(" ") == num_spaces]
            yield "thing", _joined(parts, parts[-1].replace(number, others[len(told) % len(others)]))


_OTHER_ROLES = {WORDS[kind] for kind in ("job", "bird", "landmark", "tree")}


def _change_order(parts: Sequence[Part]) -> Changes:
    yield "order", _joined([*parts[:-2], parts[-1], parts[-2]])


def _joined(parts: Sequence[Part], last: str | None = None) -> str:
    """The text of `parts`, with another text for the last one if given."""
    texts = [part.text for part in parts]
    return " ".join(texts if last is None else [*texts[:-1], last])


PHENOMENA = (
    Phenomenon("agreement", range(6), ("singular", "plural"), _change_agreement),
    Phenomenon("a or an", range(4), ("a", "an"), _change_article),
    Phenomenon("noun number", range(8), ("singular", "plural"), _change_noun_number),
    Phenomenon("word order", range(4), ("adjective",), _change_word_order),
    Phenomenon("pronoun case", range(4), ("subject", "object"), _change_case),
    Phenomenon("pronoun gender", range(4), ("feminine", "masculine"), _change_gender),
    Phenomenon("tense", range(1, 5), ("past",), _change_tense),
    Phenomenon("names kept", range(1, 5), ("name",), _change_name),
    Phenomenon("things kept", range(1, 12), ("thing",), _change_thing),
    Phenomenon("order of events", range(1, 4), ("order",), _change_order),
)
"""In the order of the reports."""
