"""The playground's two routes on a real scheduler, against the generator itself and the definition of sampling."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from served_engine import Served, serving, tokens_in
from tinyllm.config import SamplingConfig
from tinyllm.generation import sampling
from tinyllm.generation.generator import Generator
from tinyllm.loading import load_with_torch

PROMPT = "Once upon a time"
CUTS = {
    "none": {},
    "greedy": {"temperature": 0},
    "temperature": {"temperature": 0.5},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.6},
    "min_p": {"min_p": 0.2},
    "repetition": {"repetition_penalty": 1.5},
    "all": {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1},
    "presence": {"presence_penalty": 1.0, "frequency_penalty": 0.5},
}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    from tinyllm.model_dir import bundled_model

    return load_with_torch(bundled_model(), device="cpu")


@pytest.fixture(scope="module")
def server(generator: Generator) -> Iterator[Served]:
    with serving(generator) as served:
        yield served


def test_events_are_the_tokens_of_the_generator(server: Served, generator: Generator) -> None:
    events = server.generate(prompt=PROMPT, max_tokens=20, seed=5, temperature=0.9, rivals=3)
    assert [name for name, _ in events] == ["prompt", *["token"] * 20, "done"]
    expected = generator_of(generator).generate(PROMPT, max_new_tokens=20, seed=5, temperature=0.9)[0]
    tokens = tokens_in(events)
    assert [token["id"] for token in tokens] == expected.token_ids
    assert "".join(token["piece"] for token in tokens) == expected.text
    np.testing.assert_allclose([token["logprob"] for token in tokens], expected.log_probabilities, atol=1e-4)
    assert events[-1][1]["reason"] == "length"
    assert events[-1][1]["seed"] == 5
    # None if all tokens were read at once, as on a machine with other work.
    assert events[-1][1]["tokens_per_second"] is None or events[-1][1]["tokens_per_second"] > 0


def test_the_prompt_comes_with_its_log_probabilities(server: Served, generator: Generator) -> None:
    (_, prompt), *_ = server.generate(prompt=PROMPT, max_tokens=1)
    tokens = prompt["tokens"]
    assert [token["piece"] for token in tokens] == ["<s>", "Once", " upon", " a", " time"]
    assert tokens[0]["logprob"] is None
    score = generator_of(generator).score(PROMPT)
    np.testing.assert_allclose([token["logprob"] for token in tokens[1:]], score.log_probabilities, atol=1e-4)


def test_rivals_are_the_likeliest_others(server: Served, generator: Generator) -> None:
    (token,) = tokens_in(server.generate(prompt=PROMPT, max_tokens=1, rivals=10, temperature=0))
    logits = generator_of(generator).logits(PROMPT)[-1].astype(np.float64)
    nats = logits - np.log(np.exp(logits).sum())
    order = np.argsort(-nats)
    assert token["id"] == order[0]
    assert [rival["id"] for rival in token["rivals"]] == order[1:11].tolist()
    np.testing.assert_allclose([rival["logprob"] for rival in token["rivals"]], nats[order[1:11]], atol=1e-4)
    assert tokens_in(server.generate(prompt=PROMPT, max_tokens=1))[0]["rivals"] == []


def test_the_seed_of_the_end_reproduces_a_text(server: Served) -> None:
    first = server.generate(prompt=PROMPT, max_tokens=12)
    again = server.generate(prompt=PROMPT, max_tokens=12, seed=first[-1][1]["seed"])
    assert tokens_in(first) == tokens_in(again)
    assert tokens_in(server.generate(prompt=PROMPT, max_tokens=12)) != tokens_in(first)


def test_a_text_goes_on_from_a_rival(server: Served, generator: Generator) -> None:
    first = tokens_in(server.generate(prompt=PROMPT, max_tokens=1, rivals=2, temperature=0))[0]
    ids = [*generator.tokenizer.encode(PROMPT, bos=True), first["rivals"][0]["id"]]
    events = server.generate(tokens=ids, max_tokens=5, temperature=0)
    assert [token["id"] for token in events[0][1]["tokens"]] == ids
    expected = generator_of(generator).generate(ids, max_new_tokens=5, temperature=0)[0]
    assert [token["id"] for token in tokens_in(events)] == expected.token_ids


def test_parts_of_a_character_have_their_bytes(server: Served) -> None:
    events = server.generate(prompt="a €", max_tokens=1)
    pieces = [token for token in events[0][1]["tokens"] if "bytes" in token]
    assert [(token["piece"], token["bytes"]) for token in pieces] == [
        ("\ufffd", "e2"),
        ("\ufffd", "82"),
        ("\ufffd", "ac"),
    ]


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_next_shows_the_distribution_that_is_drawn_from(
    server: Served, generator: Generator, cuts: dict[str, Any]
) -> None:
    found = server.post("next", {"prompt": PROMPT, **cuts}).json()
    logits = generator_of(generator).logits(PROMPT)[-1:]
    seen = np.zeros_like(logits, bool)
    seen[0, generator.tokenizer.encode(PROMPT, bos=True)] = True
    count = 4000
    uniforms = (np.arange(count) + 0.5) / count
    config = SamplingConfig(**cuts)
    drawn = sampling.choose(logits.repeat(count, 0), seen.repeat(count, 0), uniforms, config)
    shares = np.bincount(drawn, minlength=logits.shape[1]) / count
    assert len(found["tokens"]) == 40
    for token in found["tokens"]:
        assert token["probability"] == pytest.approx(shares[token["id"]], abs=2 / count), token
    probabilities = np.array([token["probability"] for token in found["tokens"]])
    assert found["kept"] >= np.count_nonzero(probabilities)
    if found["kept"] <= 40:
        assert probabilities.sum() == pytest.approx(1, abs=1e-6)
        kept = probabilities[probabilities > 0]
        assert found["kept"] == len(kept)
        assert found["entropy"] == pytest.approx(-(kept * np.log(kept)).sum(), abs=1e-6)
        covered = sum(np.exp(token["logprob"]) for token in found["tokens"] if token["probability"])
        assert found["covered"] == pytest.approx(covered, abs=1e-6)
    order = [token["logprob"] for token in found["tokens"]]
    assert order == sorted(order, reverse=True)


def test_without_cuts_everything_is_kept(server: Served, generator: Generator) -> None:
    found = server.post("next", {"prompt": PROMPT}).json()
    assert found["kept"] == generator.tokenizer.vocab_size
    assert found["covered"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("generate", {}, "prompt"),
        ("generate", {"prompt": "a", "tokens": [1]}, "prompt"),
        ("generate", {"tokens": []}, "tokens"),
        ("generate", {"tokens": [2048]}, "tokens"),
        ("generate", {"tokens": [1] * 1000}, "tokens"),
        ("generate", {"prompt": "a " * 100_000}, "prompt"),
        ("generate", {"prompt": "a", "rivals": 21}, "rivals"),
        ("generate", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ("generate", {"prompt": "a", "max_tokens": 16_385}, "max_tokens"),
        ("generate", {"prompt": "a", "temperature": 2.1}, "temperature"),
        ("generate", {"prompt": "a", "n": 2}, "n"),
        ("generate", {"prompt": "a", "model": "other"}, "model"),
        ("generate", {"prompt": "\ud800"}, "prompt"),
        ("next", {"prompt": "a", "max_tokens": 1}, "max_tokens"),
        ("next", {"prompt": "a", "top_p": 0}, "top_p"),
        ("next", {}, "prompt"),
    ],
)
def test_wrong_requests_name_the_parameter(server: Served, route: str, body: dict[str, Any], param: str) -> None:
    # JSON escapes a lone surrogate, which UTF-8 cannot hold.
    content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    response = server.client.post(f"/studio/api/{route}", content=content, headers=headers)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("route", ["generate", "next"])
def test_answers_are_neither_stored_nor_sniffed(server: Served, route: str) -> None:
    headers = server.post(route, {"prompt": PROMPT}).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


def test_a_client_that_goes_away_frees_its_slot(server: Served) -> None:
    for _ in range(3):
        body = {"prompt": PROMPT, "max_tokens": 16_000, "rivals": 20}
        with server.client.stream("POST", "/studio/api/generate", json=body) as response:
            chunks = response.iter_bytes()
            begin = time.monotonic()
            while server.scheduler.stats().num_running != 1:  # the prompt is told before its text begins
                assert time.monotonic() - begin < 20
                next(chunks)
        begin = time.monotonic()
        while server.scheduler.stats().num_running + server.scheduler.stats().num_waiting:
            assert time.monotonic() - begin < 20
            time.sleep(0.02)


def test_a_full_queue_is_told(make_model_dir: Callable[..., Path]) -> None:
    small = load_with_torch(make_model_dir(), device="cpu")
    with serving(small, max_queue=0) as served:
        body = {"prompt": "Once", "max_tokens": 16_000, "temperature": 0}  # a drawn text may end at once
        with (
            served.client.stream("POST", "/studio/api/generate", json=body) as one,
            served.client.stream("POST", "/studio/api/generate", json=body) as other,
        ):
            assert (one.status_code, other.status_code) == (200, 200)
            refused = served.post("next", {"prompt": "Once"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "queue_full"


def generator_of(generator: Generator) -> Generator:
    """A generator of the same weights on an engine of its own: the scheduler owns that of the server."""
    return load_with_torch(generator.path, device="cpu")
