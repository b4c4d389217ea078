"""The roles of heads, on attention that is written by hand, and the limits of a trace."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tinyllm
from tinyllm.errors import ConfigError, InputError, UsageError
from tinyllm.generation import trace as module
from tinyllm.generation.generator import Generator
from tinyllm.generation.trace import ROLES, Floats, HeadRole, head_roles, role_places, role_scores
from tinyllm.loading import load_with_torch
from tinyllm.model import trace as passes

IDS = [1, 7, 8, 9, 5, 7, 8, 6, 9, 5, 3, 8]
"""7 8 . 5 and 9 5 occur twice, 8 three times."""


def looks_at(places: list[int]) -> Floats:
    """The attention (T, T) of a head that looks at one place of each token."""
    return np.eye(len(places), dtype=np.float32)[places]


def test_places_are_those_of_the_definition() -> None:
    places = dict(zip(ROLES, role_places(IDS).tolist(), strict=True))
    assert places["previous"] == [-1, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert places["beginning"] == [-1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert places["same"] == [-1, -1, -1, -1, -1, 1, 2, -1, 3, 4, -1, 6]
    assert places["after_same"] == [-1, -1, -1, -1, -1, 2, 3, -1, 4, 5, -1, 7]


def test_places_that_two_roles_share_count_for_neither() -> None:
    places = role_places([4, 4, 4, 9, 4])
    # The last occurrence of 4 at place 2 is the previous token and the next place is the token itself.
    assert places[:, 2].tolist() == [-1, 0, -1, -1]
    # At place 4 the token after the last 4 is the previous one.
    assert places[:, 4].tolist() == [-1, 0, 2, -1]


@pytest.mark.parametrize("role", range(4), ids=ROLES)
def test_a_head_that_looks_at_a_place_gets_its_role(role: int) -> None:
    places = role_places(IDS)[role]
    rest = np.random.default_rng(0).dirichlet(np.ones(len(IDS)), len(IDS)).astype(np.float32)
    rest = np.tril(rest) / np.tril(rest).sum(axis=1, keepdims=True)
    attention = np.where((places >= 0)[:, None], 0.2 * rest + 0.8 * looks_at(places.clip(0).tolist()), rest)
    (found,) = head_roles(attention[None, None], IDS)
    assert (found.layer, found.head, found.role) == (0, 0, ROLES[role])
    assert 0.8 <= found.score < 1


def test_a_head_that_looks_everywhere_alike_has_no_role_in_any_length() -> None:
    for length in range(1, 60):
        alike = np.tril(np.ones((length, length), np.float32))
        alike /= alike.sum(axis=1, keepdims=True)
        assert head_roles(alike[None, None], [5] + [length % 7 for length in range(length - 1)]) == []


def test_a_share_that_is_little_in_a_short_text_is_much_in_a_long_one() -> None:
    """A third of the attention goes to the previous token, the rest everywhere alike."""
    for length, expected in ((6, []), (100, [HeadRole(0, 0, "previous", 0.0)])):
        alike = np.tril(np.ones((length, length), np.float32))
        alike /= alike.sum(axis=1, keepdims=True)
        head = 2 / 3 * alike + 1 / 3 * looks_at([0, *range(length - 1)])
        found = head_roles(head[None, None], list(range(length)))
        assert [(each.layer, each.head, each.role) for each in found] == [(e.layer, e.head, e.role) for e in expected]


def test_few_tokens_with_a_place_prove_nothing() -> None:
    ids = [1, 7, 8, 9, 7, 8]  # only two tokens occurred before
    places = role_places(ids)
    attention = looks_at([max(place, 0) for place in places[3]])[None, None]
    assert role_scores(attention, places)[3, 0, 0] == 1
    assert "after_same" not in [each.role for each in head_roles(attention, ids)]


def test_texts_that_are_too_long_are_refused_with_their_length(
    make_model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load_with_torch(make_model_dir(context_length=64), device="cpu")
    assert len(generator.trace([1] * 64).token_ids) == 64
    with pytest.raises(InputError, match="the text has 65 tokens, but the model's context is 64"):
        generator.trace([1] * 65)
    monkeypatch.setattr("tinyllm.generation.generator.MOST_TOKENS", 10)
    with pytest.raises(InputError, match="the text has 11 tokens; a trace takes at most 10"):
        generator.trace([1] * 11)
    with pytest.raises(ConfigError, match="num_likeliest is 0"):
        generator.trace("a", num_likeliest=0)
    assert module.MOST_TOKENS == 256


def test_a_text_of_one_token_has_a_trace(make_model_dir: Callable[..., Path]) -> None:
    trace = load_with_torch(make_model_dir(), device="cpu").trace("")
    assert trace.token_ids == [1]
    assert trace.loss == [None]
    assert trace.attention.tolist() == [[[[1.0]]] * 4] * 2
    assert trace.roles == []


def test_both_engines_give_the_same_trace(make_model_dir: Callable[..., Path]) -> None:
    path = make_model_dir()
    one, other = tinyllm.load(path, device="cpu"), load_with_torch(path, device="cpu")
    first, second = one.trace("the fox saw"), other.trace("the fox saw")
    np.testing.assert_array_equal(first.attention, second.attention)
    np.testing.assert_array_equal(first.norms, second.norms)
    assert first.log_probabilities == second.log_probabilities
    score = one.score("the fox saw")
    np.testing.assert_allclose(score.log_probabilities, first.log_probabilities[1:], atol=1e-4)  # type: ignore[arg-type]


def test_the_module_is_opened_once_for_many_threads(
    make_model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load_with_torch(make_model_dir(), device="cpu")
    opened = generator._opened_module()
    calls: list[int] = []
    several = Generator(
        generator.engine,
        generator.tokenizer,
        generator.config,
        open_module=lambda: calls.append(1) or opened,  # type: ignore[func-returns-value]
    )
    threads = [threading.Thread(target=several.trace, args=("the fox",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert passes.look_inside(opened, np.array([1, 2]), 2).lens_ids.shape == (3, 2, 2)


def test_a_generator_without_a_module_says_so(make_model_dir: Callable[..., Path]) -> None:
    loaded = load_with_torch(make_model_dir(), device="cpu")
    bare = Generator(loaded.engine, loaded.tokenizer, loaded.config)
    with pytest.raises(UsageError, match="no PyTorch module"):
        bare.trace("the fox")
