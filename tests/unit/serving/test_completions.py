"""Answers of /v1/completions: forms, parameters that reach the scheduler, and errors."""

import json
from typing import Any

import httpx
import pytest

from serving_stub import CONTEXT_LENGTH, NATS, TEXT, StubScheduler, call, complete, served
from tinyllm.errors import QueueFullError, ShuttingDownError
from tinyllm.serving import streams


def events(response: httpx.Response) -> list[Any]:
    """The objects of a stream; its end is checked."""
    *parts, last, nothing = response.text.split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def test_a_text_is_answered_in_openai_s_form() -> None:
    found = complete({"max_tokens": 3}).json()
    assert found["object"] == "text_completion"
    assert found["model"] == "storybook"
    assert found["choices"] == [{"index": 0, "text": " there was a", "logprobs": None, "finish_reason": "length"}]
    assert found["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def test_the_default_is_16_tokens_at_temperature_1_with_a_random_seed() -> None:
    scheduler = StubScheduler()
    for _ in range(2):
        complete({}, models=[served(scheduler=scheduler)])
    first, second = (request.sampling for request in scheduler.requests)
    assert (first.max_new_tokens, first.temperature, first.top_p, first.top_k) == (16, 1.0, 1.0, 0)
    assert first.seed != second.seed


def test_every_parameter_reaches_the_scheduler() -> None:
    scheduler = StubScheduler()
    body = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "presence_penalty": 0.25,
        "frequency_penalty": -0.25,
        "logit_bias": {"262": -100},
        "seed": 7,
        "stop": ["The end", "!"],
        "n": 2,
        "logprobs": 3,
        "user": "someone",
    }
    assert complete(body, models=[served(scheduler=scheduler)]).status_code == 200
    first, second = scheduler.requests
    assert (first.sample, second.sample, first.top_logprobs) == (0, 1, 3)
    assert first.sampling == second.sampling
    found = first.sampling.model_dump()
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "seed"):
        assert found[name] == body[name]
    assert found["frequency_penalty"] == -0.25
    assert found["stop"] == ("The end", "!")
    assert dict(found["logit_bias"]) == {262: -100}


def test_prompts_are_texts_or_ids_one_or_several() -> None:
    scheduler = StubScheduler()
    ids = scheduler.tokenizer.encode("Once upon", bos=True)
    for prompt in ("Once upon", ids):
        complete({"prompt": prompt}, models=[served(scheduler=scheduler)])
        complete({"prompt": [prompt, prompt]}, models=[served(scheduler=scheduler)])
    assert [request.prompt_ids for request in scheduler.requests] == [tuple(ids)] * 6


def test_texts_of_several_prompts_are_numbered_prompt_by_prompt() -> None:
    found = complete({"prompt": ["Once", "The fox"], "n": 2, "max_tokens": 1, "echo": True}).json()
    assert [choice["text"] for choice in found["choices"]] == ["Once there"] * 2 + ["The fox there"] * 2
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    assert found["usage"]["completion_tokens"] == 4


def test_null_is_the_default() -> None:
    body = dict.fromkeys(("model", "max_tokens", "n", "best_of", "stop", "seed", "logit_bias", "stream", "logprobs"))
    assert complete(body).json()["choices"][0]["text"] == TEXT


def test_a_stream_joins_to_the_text() -> None:
    response = complete({"stream": True, "n": 2})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = events(response)
    for index in (0, 1):
        choices = [choice for event in found for choice in event["choices"] if choice["index"] == index]
        assert "".join(choice["text"] for choice in choices) == TEXT
        assert [choice["finish_reason"] for choice in choices][-1] == "stop"
        assert {choice["finish_reason"] for choice in choices[:-1]} <= {None}
    assert all("usage" not in event for event in found)


def test_a_stream_that_waits_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ALIVE_SECONDS", 0.02)
    model = served(scheduler=StubScheduler(seconds=0.1))
    lines = complete({"stream": True, "max_tokens": 3}, models=[model]).text.split("\n\n")
    assert ": alive" in lines
    told = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(each["choices"][0]["text"] for each in told) == " there was a"


def test_a_stream_with_usage_ends_with_it() -> None:
    found = events(complete({"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 3}))
    assert found[-1]["choices"] == []
    assert found[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert all(event["usage"] is None for event in found[:-1])


def test_log_probabilities_have_the_form_of_completions() -> None:
    (choice,) = complete({"logprobs": 2, "max_tokens": 2}).json()["choices"]
    assert choice["logprobs"]["tokens"] == [" there", " was"]
    assert choice["logprobs"]["token_logprobs"] == [NATS, NATS]
    assert choice["logprobs"]["text_offset"] == [0, 6]
    assert choice["logprobs"]["top_logprobs"][0] == {" ⁇ ": NATS, "<s>": NATS - 1, " there": NATS}


def test_echo_with_log_probabilities_scores_the_prompt() -> None:
    (choice,) = complete({"logprobs": 0, "max_tokens": 0, "echo": True}).json()["choices"]
    assert choice["text"] == "Once upon a time"
    assert choice["logprobs"]["tokens"] == ["<s>", " Once", " upon", " a", " time"]
    assert choice["logprobs"]["token_logprobs"] == [None, NATS, NATS, NATS, NATS]
    assert choice["logprobs"]["text_offset"] == [0, 0, 4, 9, 11]
    assert choice["finish_reason"] == "length"


def test_streamed_log_probabilities_equal_those_of_the_whole_answer() -> None:
    body = {"logprobs": 1, "echo": True, "max_tokens": 4}
    (whole,) = complete(body).json()["choices"]
    parts = [event["choices"][0] for event in events(complete(body | {"stream": True}))]
    for name, values in whole["logprobs"].items():
        assert [value for part in parts for value in part["logprobs"][name]] == values
    assert "".join(part["text"] for part in parts) == whole["text"]


def test_best_of_sends_the_likeliest_texts_and_counts_all() -> None:
    found = complete({"n": 1, "best_of": 3, "max_tokens": 2, "logprobs": 0}).json()
    (choice,) = found["choices"]
    assert choice["index"] == 0
    assert choice["logprobs"]["token_logprobs"] == [NATS / 3] * 2
    assert found["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize(
    ("body", "param", "word"),
    [
        ({"prompt": None}, "prompt", "text"),
        ({"prompt": []}, "prompt", "list"),
        ({"prompt": [[]]}, "prompt", "list"),
        ({"prompt": ["a", 3]}, "prompt", "list"),
        ({"prompt": {"text": "a"}}, "prompt", "list"),
        ({"prompt": [2048]}, "prompt", "out of range"),
        ({"prompt": [-1]}, "prompt", "list"),
        ({"prompt": "fox " * CONTEXT_LENGTH * 2}, "prompt", "maximum context length"),
        ({"prompt": "x" * 100_000}, "prompt", "maximum context length"),
        ({"prompt": ["a", [1] * 65]}, "prompt", "list"),
        ({"prompt": [[1], [1] * 65]}, "prompt[1]", "maximum context length"),
        ({"prompt": ["a"] * 129}, "prompt", "128"),
        ({"prompt": ["a"] * 65, "n": 2}, "n", "128"),
        ({"prompt": "\ud800"}, "prompt", "surrogate"),
        ({"model": 3}, "model", "string"),
        ({"max_tokens": -1}, "max_tokens", "greater"),
        ({"max_tokens": 16_385}, "max_tokens", "16384"),
        ({"max_tokens": 16_384, "n": 5}, "max_tokens", "65,536"),
        ({"max_tokens": 1.5}, "max_tokens", "integer"),
        ({"max_tokens": "5"}, "max_tokens", "integer"),
        ({"temperature": 2.1}, "temperature", "2"),
        ({"temperature": -0.1}, "temperature", "0"),
        ({"temperature": True}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"top_p": 1.01}, "top_p", "1"),
        ({"n": 0}, "n", "1"),
        ({"n": 129}, "n", "128"),
        ({"n": 2, "best_of": 1}, "best_of", "at least n"),
        ({"best_of": 2, "stream": True}, "best_of", "streamed"),
        ({"logprobs": 6}, "logprobs", "5"),
        ({"logprobs": True}, "logprobs", "integer"),
        ({"echo": 1}, "echo", "bool"),
        ({"stop": ["a"] * 5}, "stop", "at most 4"),
        ({"stop": ""}, "stop", "1 to 1,000"),
        ({"stop": "a" * 1001}, "stop", "1 to 1,000"),
        ({"seed": 2**63}, "seed", "less"),
        ({"presence_penalty": 2.5}, "presence_penalty", "2"),
        ({"frequency_penalty": -2.5}, "frequency_penalty", "-2"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "100"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "token id"),
        ({"logit_bias": {"5": 1, "05": 2}}, "logit_bias", "without leading zeros"),
        ({"max_tokens": "2"}, "max_tokens", 'max_tokens is "2"; it should be a valid integer'),
        ({"stream": None, "echo": "true"}, "echo", 'echo is "true"; it should be a valid boolean'),
        ({"prompt": []}, "prompt", "it should be a text, a list of token ids"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", "out of range"),
        ({"logit_bias": {str(id): 1 for id in range(301)}}, "logit_bias", "300"),
        ({"top_k": -2}, "top_k", "-1"),
        ({"min_p": 1}, "min_p", "1"),
        ({"repetition_penalty": 0}, "repetition_penalty", "0"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ({"stream": True, "stream_options": {"include_all": True}}, "stream_options.include_all", "Unrecognized"),
        ({"suffix": "end"}, "suffix", "Unrecognized"),
        ({"temprature": 1}, "temprature", "Unrecognized"),
    ],
)
def test_a_wrong_parameter_is_named(body: dict[str, Any], param: str, word: str) -> None:
    options: dict[str, Any] = {}
    if body.get("prompt") == "\ud800":
        options = {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}}
        response = call("POST", "/v1/completions", **options)
    else:
        response = complete(body)
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param, error
    assert word in error["message"]
    assert len(error["message"]) < 400


def test_an_unknown_model_is_openai_s_404() -> None:
    response = complete({"model": "gpt-4"})
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "The model `gpt-4` does not exist",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
        "values": {"model": "gpt-4"},  # ours: what the message names
    }


def test_a_request_chooses_its_model_by_name() -> None:
    models = [served("first"), served("second")]
    assert complete({}, models=models).json()["model"] == "first"
    assert complete({"model": "second"}, models=models).json()["model"] == "second"


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_is_503_with_retry_after(stream: bool) -> None:
    failure = QueueFullError("the queue is full", retry_after_seconds=3)
    response = complete({"stream": stream}, models=[served(scheduler=StubScheduler(failure))])
    assert response.status_code == 503
    assert response.headers["retry-after"] == "3"
    assert response.json()["error"]["code"] == "queue_full"


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_token_has_its_status(stream: bool) -> None:
    failure = ShuttingDownError("the server is shutting down")
    response = complete({"stream": stream, "n": 2}, models=[served(scheduler=StubScheduler(failure, 1))])
    assert (response.status_code, stream) in ((503, False), (200, True))
    assert "shutting down" in response.text


def test_an_error_in_a_stream_is_its_last_event() -> None:
    scheduler = StubScheduler(ShuttingDownError("the server is shutting down"), 2)
    response = complete({"stream": True}, models=[served(scheduler=scheduler)])
    *_, last = response.text.strip().split("\n\n")
    assert response.status_code == 200
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
    assert "[DONE]" not in response.text
    assert scheduler.cancelled > 0
