"""Tests the survey of a corpus: counts that a person can check, and the vocabularies that a text allows."""

import pytest

from tinyllm.corpus.documents import Document
from tinyllm.corpus.storybook import write_stories
from tinyllm.errors import InputError
from tinyllm.planning.survey import survey, try_vocabularies


def test_survey_counts_bytes_documents_characters_and_repetition() -> None:
    texts = ["aé", "bb", "aé"]
    facts, lines = survey(Document(text, "texts.txt") for text in texts)
    assert (facts.num_bytes, facts.num_documents, facts.num_characters) == (8, 3, 3)
    assert facts.repeated_bytes == 3
    assert lines == texts


def test_repetitive_text_compresses_to_fewer_bits() -> None:
    stories = list(write_stories(300, seed=1))
    varied, _ = survey(Document(story, "a") for story in stories)
    repeated, _ = survey(Document(stories[0], "a") for _ in range(300))
    assert repeated.compressed_bits < varied.compressed_bits < 8


def test_larger_vocabularies_have_longer_tokens() -> None:
    found = try_vocabularies("\n".join(write_stories(500, seed=1)).splitlines())
    assert [vocabulary.size for vocabulary in found][:3] == [512, 1024, 2048]
    lengths = [vocabulary.bytes_per_token for vocabulary in found]
    assert lengths == sorted(lengths)
    assert 1.5 < lengths[0] < 3


def test_small_text_gets_a_vocabulary_below_the_smallest_size() -> None:
    (only,) = try_vocabularies(["A cat sat.", "A cat ran."])
    assert 259 < only.size < 512


def test_text_with_many_characters_leaves_rare_ones_to_bytes() -> None:
    common = "".join(chr(0x4E00 + number) for number in range(900)) * 60
    rare = "".join(chr(0x5E00 + number) for number in range(600))
    found = try_vocabularies([common[i : i + 500] for i in range(0, len(common), 500)] + [rare], sizes=(2048, 8192))
    assert found[0].size == 2048
    assert 0.98 <= found[0].character_coverage < 1
    assert all(vocabulary.character_coverage >= 0.98 for vocabulary in found)


def test_empty_text_is_refused() -> None:
    with pytest.raises(InputError):
        try_vocabularies([])


def test_a_text_of_one_character_is_refused_without_a_flag_that_fit_lacks() -> None:
    with pytest.raises(InputError, match="too small to learn from: 1 different characters on 1 lines") as caught:
        try_vocabularies(["\0" * 1000])
    assert "vocab_size" not in str(caught.value)


def test_a_short_text_of_many_characters_gets_small_vocabularies_of_its_commonest_ones() -> None:
    """Zipf's law: character number n occurs 3,000 / n times, as in Chinese."""
    text = "".join(chr(0x4E00 + number) * (3_000 // (number + 1)) for number in range(1_500))
    lines = ["".join(text[start::97]) for start in range(97)]
    found = try_vocabularies(lines, sizes=(512, 1024, 8192))
    assert [vocabulary.size for vocabulary in found][:2] == [512, 1024]
    assert 0.5 < found[0].character_coverage < found[1].character_coverage < 0.98
