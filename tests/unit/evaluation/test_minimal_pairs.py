"""The built-in pairs: the grammar accepts each good text and refuses each bad one, which differs in one place."""

import hashlib
from bisect import bisect_left
from collections import Counter
from itertools import pairwise

import pytest

from tinyllm.corpus.storybook import write_stories
from tinyllm.corpus.storybook.stories import begins_story
from tinyllm.corpus.storybook.words import BOYS, GIRLS, WORDS
from tinyllm.evaluation.minimal_pairs import PAIRS_EACH, MinimalPair, storybook_pairs
from tinyllm.evaluation.phenomena import PHENOMENA, _third_person

SWAPS = ("word order", "order of events")
REPLACEMENTS = {
    "agreement": {"was were", "were was", "is are", "are is"},
    "a or an": {"a an", "an a", "A An", "An A"},
    "pronoun case": {"he him", "she her", "He Him", "She Her", "him he", "her she"},
    "pronoun gender": {"he she", "she he", "He She", "She He", "his her", "her his", "His Her", "Her His"}
    | {"him her", "her him", "himself herself", "herself himself", "boy girl", "girl boy"},
}


def pairs(group: str) -> list[MinimalPair]:
    return [pair for pair in storybook_pairs() if pair.group == group]


def change(pair: MinimalPair) -> tuple[str, str]:
    """The words in which good and bad differ, between the words at which both begin and end alike."""
    good, bad = pair.good.split(), pair.bad.split()
    start = next(i for i, (one, other) in enumerate(zip(good, bad, strict=False)) if one != other)
    end = next(i for i, (one, other) in enumerate(zip(good[::-1], bad[::-1], strict=False)) if one != other)
    return tuple(" ".join(text[start : len(text) - end]).strip('.,!?"') for text in (good, bad))  # type: ignore[return-value]


def test_the_set_is_the_same_everywhere() -> None:
    """Pins the set: a change makes results incomparable with earlier ones, and is a decision."""
    content = "\n".join(f"{pair.group}\t{pair.good}\t{pair.bad}" for pair in storybook_pairs())
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == "dec283adc1665206"


def test_there_are_a_hundred_distinct_pairs_of_each_phenomenon() -> None:
    assert Counter(pair.group for pair in storybook_pairs()) == {rule.name: PAIRS_EACH for rule in PHENOMENA}
    assert len(storybook_pairs()) == 1_000
    assert len({pair.good for pair in storybook_pairs()}) > 995
    assert not {pair.good for pair in storybook_pairs()} & {pair.bad for pair in storybook_pairs()}


def test_only_the_good_text_begins_a_story() -> None:
    for pair in storybook_pairs():
        assert begins_story(pair.good), pair
        assert not begins_story(pair.bad), pair


@pytest.mark.parametrize("group", [rule.name for rule in PHENOMENA if rule.name not in SWAPS])
def test_one_word_differs(group: str) -> None:
    for pair in pairs(group):
        good, bad = change(pair)
        assert len(pair.good.split()) == len(pair.bad.split()), pair
        assert len(good.split()) == 1 or group == "things kept", (good, bad)
        assert f"{good} {bad}" in REPLACEMENTS.get(group, {f"{good} {bad}"})


@pytest.mark.parametrize(
    ("group", "forms"),
    [
        ("agreement", ({"was", "is"}, {"were", "are"})),
        ("a or an", ({"a", "A"}, {"an", "An"})),
        ("pronoun gender", ({"she", "She", "her", "Her", "herself", "girl"}, {"he", "He", "his", "His", "him", "boy"})),
    ],
)
def test_no_form_is_right_more_often(group: str, forms: tuple[set[str], set[str]]) -> None:
    right = Counter(change(pair)[0] for pair in pairs(group))
    assert sum(right[word] for word in forms[0]) == sum(right[word] for word in forms[1]) == PAIRS_EACH // 2


def test_swaps_keep_every_word() -> None:
    for pair in pairs("order of events"):
        assert sorted(pair.good.split()) == sorted(pair.bad.split())
    for pair in pairs("word order"):
        strip = str.maketrans("", "", '.,!?"')
        good, bad = (text.translate(strip).lower().split() for text in (pair.good, pair.bad))
        articles = {"a", "an"}
        assert sorted(set(good) - articles) == sorted(set(bad) - articles), pair


def test_the_name_and_the_thing_were_told_before() -> None:
    for pair in pairs("names kept"):
        good, bad = (word.split("'")[0] for word in change(pair))
        assert pair.good.count(good) >= 2, pair
        assert bad not in pair.good
        assert (good in GIRLS) == (bad in GIRLS)
        assert good in GIRLS + BOYS
    for pair in pairs("things kept"):
        assert change(pair)[0] in pair.good[: pair.good.rindex(change(pair)[0])], pair


def test_no_pair_is_of_the_stories_that_models_learn() -> None:
    """The bundled model learned the 20,000 stories of seed 7."""
    learned = sorted(write_stories(20_000, seed=7))
    for pair in storybook_pairs():
        place = bisect_left(learned, pair.good)
        assert not any(story.startswith(pair.good) for story in learned[place : place + 1]), pair


def test_the_third_person_is_spelled_right() -> None:
    found = {verb: _third_person(verb) for verb in ("run", "rush", "march", "hurry", "cry", "say", "race", "weep")}
    assert list(found.values()) == ["runs", "rushes", "marches", "hurries", "cries", "says", "races", "weeps"]
    assert not set(WORDS["ran"]) & set(found.values())


def test_steps_of_a_phenomenon_ascend() -> None:
    assert all(first < second for rule in PHENOMENA for first, second in pairwise(rule.steps))
