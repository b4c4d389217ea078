"""The tally of sampled stories against stories that the grammar wrote, and texts that it did not write."""

import json
from itertools import islice
from pathlib import Path

from tinyllm.corpus.storybook import write_stories
from tinyllm.evaluation.stories import Tally, judge_stories, read_stories


def test_accepted_and_new_stories_are_counted() -> None:
    stories = list(islice(write_stories(6, seed=3), 6))
    texts = [*stories, "Once upon a time", ""]
    assert judge_stories(texts, known=stories[:2]) == Tally(accepted=6, new=4)


def test_stories_are_read_from_the_corpus(tmp_path: Path) -> None:
    corpus = tmp_path / "stories.jsonl"
    corpus.write_text("".join(json.dumps({"story": story}) + "\n" for story in ("One.", "Zwei. ü")), encoding="utf-8")
    assert read_stories(corpus) == ["One.", "Zwei. ü"]
