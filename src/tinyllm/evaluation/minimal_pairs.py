"""The built-in minimal pairs: 1,000 beginnings of storybook stories, each beside a copy with one mistake.

Both texts end with the step of the mistake. The storybook's grammar accepts the good text as the beginning of a story,
and refuses the bad one. So no pair rests on a judgement of taste.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from tinyllm.corpus.storybook.grammar import plots
from tinyllm.corpus.storybook.stories import Part, begins_story, tell
from tinyllm.evaluation.phenomena import PHENOMENA, Phenomenon

PAIRS_EACH = 100
SEED = 2**40
"""Seeds of corpora are small numbers; each phenomenon takes the next seed."""


@dataclass(frozen=True)
class MinimalPair:
    """Two texts that differ in one place; the good one should be likelier."""

    good: str
    bad: str
    group: str
    """The phenomenon, in reports."""


@cache
def storybook_pairs() -> tuple[MinimalPair, ...]:
    """The built-in set: `PAIRS_EACH` pairs of each phenomenon, the same on every machine."""
    return tuple(
        pair for number, phenomenon in enumerate(PHENOMENA) for pair in _pairs(phenomenon, SEED + number, PAIRS_EACH)
    )


def _pairs(phenomenon: Phenomenon, seed: int, num_pairs: int) -> Iterator[MinimalPair]:
    """Distinct pairs; the right forms of the phenomenon take turns."""
    draw = random.Random(seed).random
    seen: set[str] = set()
    while len(seen) < num_pairs:
        form = phenomenon.forms[len(seen) % len(phenomenon.forms)]
        parts = _tell_beginning(phenomenon, draw)
        changes = [bad for found, bad in phenomenon.changes(parts) if found == form]
        good = " ".join(part.text for part in parts)
        if not changes or good in seen:
            continue
        bad = changes[int(draw() * len(changes))]
        if begins_story(good) and not begins_story(bad):
            seen.add(good)
            yield MinimalPair(good, bad, phenomenon.name)


def _tell_beginning(phenomenon: Phenomenon, draw: Callable[[], float]) -> list[Part]:
    """A story up to one of the phenomenon's steps; shorter only if the plot has fewer steps."""
    parts = tell(plots()[int(draw() * len(plots()))], draw)
    step = phenomenon.steps[int(draw() * len(phenomenon.steps))]
    return parts[: step + 1]
