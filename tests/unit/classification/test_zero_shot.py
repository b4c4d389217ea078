"""Zero-shot scores against the plain computation: one whole text at a time, token by token."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reference_data import STORIES_260K, reduced_tokenizer
from tinyllm.classification.batches import encode_sentences
from tinyllm.classification.zero_shot import QUESTION, ZeroShot, ask, continuation_ids
from tinyllm.corpus.storybook import write_stories
from tinyllm.errors import InputError
from tinyllm.model_dir import load_model
from tinyllm.tokenizer.codec import Tokenizer

LABELS = ["red", "red ball", "bear", "fox", "a"]
FILM_SENTENCES = [
    "A dull , noisy film that never finds its feet .",
    "It 's warm and funny , and does n't ask you to think .",
    "Two hours of ... well , what ?",
    "` Charming ' is the word -- nothing more , nothing less .",
    "an 84-minute sketch that cost $ 3 million",
]
SENTENCES = ["the fox saw a ball", "Once upon a time", "cat cat cat cat cat", "é"]


@torch.inference_mode()
def naive_scores(model: torch.nn.Module, tokenizer: Tokenizer, sentence: str, labels: list[str]) -> list[float]:
    scores = []
    for label in labels:
        prompt = tokenizer.encode(f"{sentence} {ask(QUESTION, labels)}".rstrip(), bos=True)
        ids = tokenizer.encode(f"{sentence} {ask(QUESTION, labels)}{label}", bos=True)
        assert ids[: len(prompt)] == prompt
        log_probabilities = model(torch.tensor([ids]))[0].log_softmax(-1)
        scores.append(sum(float(log_probabilities[at - 1, ids[at]]) for at in range(len(prompt), len(ids))))
    return scores


def test_scores_equal_those_of_one_text_at_a_time(make_model_dir: Callable[..., Path]) -> None:
    model, tokenizer = load_model(make_model_dir(context_length=256))
    zero_shot = ZeroShot(model, tokenizer, LABELS, QUESTION)
    assert {len(label) for label in zero_shot.labels} >= {1, 2}, "labels of one token and of several"
    rows = encode_sentences(SENTENCES, tokenizer, zero_shot.row_limit).rows
    expected = torch.tensor([naive_scores(model, tokenizer, sentence, LABELS) for sentence in SENTENCES])
    assert expected.std(dim=1).min() > 0.1  # the labels must differ
    torch.testing.assert_close(zero_shot.score_rows(rows), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["tok512", "llama2"])
def test_whole_sentences_are_encoded_as_one_text(name: str) -> None:
    """Sentence, question and label are encoded separately; joined, the ids equal those of the whole text."""
    names = ["awful", "bad", "average", "good", "excellent"]
    content = (STORIES_260K / "tok512.model").read_bytes() if name == "tok512" else reduced_tokenizer(name)
    tokenizer = Tokenizer.from_bytes(content, name)
    for story in write_stories(10, seed=1):
        for text in (*FILM_SENTENCES, *(f"{sentence} ." for sentence in story.split(". "))):
            question = ask(QUESTION, names)
            parts = tokenizer.encode(text), continuation_ids(tokenizer, question), continuation_ids(tokenizer, "bad")
            assert [*parts[0], *parts[1], *parts[2]] == tokenizer.encode(f"{text} {question}bad")


def test_a_label_that_is_a_prefix_of_another_needs_no_row(make_model_dir: Callable[..., Path]) -> None:
    zero_shot = ZeroShot(*load_model(make_model_dir(context_length=256)), ["red", "red ball"], "{labels}")
    assert len(zero_shot.stems) == 1


def test_the_question_is_the_course_s() -> None:
    names = ["awful", "bad", "average", "good", "excellent"]
    expected = "Is this movie awful, bad, average, good, or excellent? This movie is "
    assert ask(QUESTION, names) == expected
    assert ask(QUESTION, ["bad", "good"]) == "Is this movie bad or good? This movie is "


def test_a_context_too_short_for_the_question_is_refused(make_model_dir: Callable[..., Path]) -> None:
    model, tokenizer = load_model(make_model_dir(context_length=32))
    with pytest.raises(InputError, match="context is 32; no sentence fits before them"):
        ZeroShot(model, tokenizer, LABELS, QUESTION)
