"""The route of traces: the numbers of the generator, one trace at a time, and limits."""

import asyncio
import base64
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serving_stub import StubScheduler, call, served
from tinyllm.errors import QueueFullError
from tinyllm.generation.generator import Generator
from tinyllm.loading import load_with_torch
from tinyllm.model_dir import bundled_model
from tinyllm.serving.models import ServedModel
from tinyllm.serving.studio import inside
from tinyllm.serving.studio.inside import MOST_WAITING, Turns
from tinyllm.serving.threads import Threads

TEXT = "Once upon a time there was a girl named Lily. Lily had a red ball."


class Untouchable:
    """An engine that nobody may call."""

    context_length, vocab_size, description = 256, 2048, "no engine"


@pytest.fixture(scope="module")
def model() -> ServedModel:
    """The bundled model with a scheduler and an engine that a trace has no use for."""
    loaded = load_with_torch(bundled_model(), device="cpu")
    engine: Any = Untouchable()
    generator = Generator(
        engine, loaded.tokenizer, loaded.config, loaded.path, open_module=lambda: loaded._opened_module()
    )
    return ServedModel("storybook", generator, StubScheduler())  # type: ignore[arg-type]


def trace(model: ServedModel, body: dict[str, Any]) -> Any:
    return call("POST", "/studio/api/trace", body, models=[model])


def test_the_answer_has_the_numbers_of_the_trace(model: ServedModel) -> None:
    found = trace(model, {"text": TEXT}).json()
    expected = model.generator.trace(TEXT)
    size = len(expected.token_ids)
    assert (found["layers"], found["heads"]) == (5, 4)
    weights = np.frombuffer(base64.b64decode(found["attention"]), np.uint8).reshape(5, 4, size, size)
    np.testing.assert_allclose(weights / 255, expected.attention, atol=0.5 / 255 + 1e-6)
    assert [token["id"] for token in found["tokens"]] == expected.token_ids
    assert [token["piece"] for token in found["tokens"]][:4] == ["<s>", "Once", " upon", " a"]
    assert found["loss"] == expected.loss
    np.testing.assert_allclose(found["norms"], expected.norms, atol=1e-4)
    assert np.shape(found["lens"]) == (6, size, 3)
    for row, ids in zip(found["lens"], expected.lens_ids.tolist(), strict=True):
        assert [[each["id"] for each in place] for place in row] == ids
    last = [place[0]["probability"] for place in found["lens"][-1]]
    np.testing.assert_allclose(last, expected.lens_probabilities[-1, :, 0], atol=1e-4)
    assert found["lens"][-1][2][0]["piece"] == " a"
    assert [(each["layer"], each["head"], each["role"]) for each in found["roles"]] == [
        (each.layer, each.head, each.role) for each in expected.roles
    ]
    assert "after_same" in {each["role"] for each in found["roles"]}


def test_texts_that_are_too_long_are_refused(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = trace(model, {"text": "ball " * 300})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    monkeypatch.setattr(inside, "MOST_ATTENTION_BYTES", 5 * 4 * 10 * 10)
    assert trace(model, {"text": "ball " * 8}).status_code == 200
    refused = trace(model, {"text": "ball " * 12})
    assert refused.status_code == 400
    assert "takes at most 10" in refused.json()["error"]["message"]


@pytest.mark.parametrize("body", [{}, {"text": 3}, {"text": "a", "layers": 1}, {"text": "a", "model": "other"}])
def test_wrong_requests_are_refused(model: ServedModel, body: dict[str, Any]) -> None:
    assert trace(model, body).status_code in (400, 404)


def test_an_empty_text_is_its_first_token(model: ServedModel) -> None:
    found = trace(model, {"text": ""}).json()
    assert [token["piece"] for token in found["tokens"]] == ["<s>"]
    assert found["loss"] == [None]


def test_one_trace_of_a_model_runs_at_a_time_and_few_wait() -> None:
    num_running, most_running = 0, 0
    lock = threading.Lock()

    def slow(ids: list[int], *, num_likeliest: int) -> list[int]:
        nonlocal num_running, most_running
        with lock:
            num_running += 1
            most_running = max(most_running, num_running)
        time.sleep(0.02)
        with lock:
            num_running -= 1
        return ids

    model = served()
    model.generator = SimpleNamespace(trace=slow)  # type: ignore[assignment]

    async def ask() -> list[Any]:
        turns = Turns(Threads())
        calls = [turns.trace(model, [number]) for number in range(MOST_WAITING + 3)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        return [*results, await turns.trace(model, [7])]  # there is room again

    results = asyncio.run(ask())
    assert most_running == 1
    assert results[:MOST_WAITING] == [[number] for number in range(MOST_WAITING)]
    assert all(isinstance(each, QueueFullError) for each in results[MOST_WAITING:-1])
    assert results[-1] == [7]
