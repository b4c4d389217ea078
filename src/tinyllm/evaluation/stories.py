"""Counts how many sampled stories the storybook grammar accepts, and how many of those are new.

The grammar decides; no judgement of style or meaning is made here.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyllm.corpus.storybook import is_story


@dataclass(frozen=True)
class Tally:
    """Counts of sampled stories."""

    accepted: int
    """Stories that the grammar accepts."""
    new: int
    """Accepted stories that are not in the training set."""


def judge_stories(texts: Sequence[str], known: Iterable[str]) -> Tally:
    """Counts the texts that the grammar accepts, and the accepted ones that are not among the `known` stories."""
    known = set(known)
    accepted = [text for text in texts if is_story(text)]
    return Tally(len(accepted), sum(text not in known for text in accepted))


def read_stories(corpus: Path) -> list[str]:
    """The stories of a `.jsonl` file that `tinyllm data storybook` wrote: the key `story` of each line."""
    with corpus.open(encoding="utf-8") as file:
        return [json.loads(line)["story"] for line in file]
