"""The `openai` package, sync, async and streaming, against a real server of the bundled model.

The expected texts are those of `tinyllm.load().generate`.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

import tinyllm
from server_process import KEY, ServerProcess
from tinyllm.generation.generator import Generator

PROMPT = "Once upon a time"
NUM_TOKENS = 24


@pytest.fixture(scope="module")
def model() -> Generator:
    """The same model without a server."""
    return tinyllm.load()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """A client that shows every failure at once."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["storybook"]
    assert client.models.retrieve("storybook").owned_by == "tinyllm"


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 0.8, "seed": 7, "top_p": 0.9}])
def test_a_completion_is_the_text_of_the_model(
    client: openai.OpenAI, model: Generator, settings: dict[str, Any]
) -> None:
    found = client.completions.create(model="storybook", prompt=PROMPT, max_tokens=NUM_TOKENS, n=2, **settings)
    expected = model.generate(PROMPT, max_new_tokens=NUM_TOKENS, num_samples=2, **settings)
    assert [choice.text for choice in found.choices] == [each.text for each in expected]
    assert found.usage.completion_tokens == 2 * NUM_TOKENS


def test_extra_parameters_are_those_of_the_model(client: openai.OpenAI, model: Generator) -> None:
    extra: dict[str, Any] = {"top_k": 5, "min_p": 0.05, "repetition_penalty": 1.2}
    found = client.completions.create(model="storybook", prompt=PROMPT, max_tokens=NUM_TOKENS, seed=3, extra_body=extra)
    expected = model.generate(PROMPT, max_new_tokens=NUM_TOKENS, seed=3, **extra)
    assert found.choices[0].text == expected[0].text


def test_several_prompts_of_text_and_of_ids(client: openai.OpenAI, model: Generator) -> None:
    prompts = [PROMPT, "The fox"]
    expected = [model.generate(prompt, max_new_tokens=8, temperature=0)[0].text for prompt in prompts]
    ids = [model.tokenizer.encode(prompt, bos=True) for prompt in prompts]
    for given in (prompts, ids):
        found = client.completions.create(model="storybook", prompt=given, max_tokens=8, temperature=0)
        assert [choice.text for choice in found.choices] == expected


def test_a_stream_joins_to_the_text(client: openai.OpenAI, model: Generator) -> None:
    stream = client.completions.create(
        model="storybook",
        prompt=PROMPT,
        max_tokens=NUM_TOKENS,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert text == model.generate(PROMPT, max_new_tokens=NUM_TOKENS, temperature=0)[0].text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == NUM_TOKENS


def test_a_stop_string_ends_a_text(client: openai.OpenAI, model: Generator) -> None:
    found = client.completions.create(
        model="storybook", prompt=PROMPT, max_tokens=60, temperature=0, stop=["named", "!"]
    )
    expected = model.generate(PROMPT, max_new_tokens=60, temperature=0, stop=("named", "!"))[0]
    assert (found.choices[0].text, found.choices[0].finish_reason) == (expected.text, "stop")


def test_log_probabilities_are_those_of_the_model(client: openai.OpenAI, model: Generator) -> None:
    found = client.completions.create(
        model="storybook", prompt=PROMPT, max_tokens=6, temperature=0, logprobs=5, echo=True
    )
    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    score = model.score(found.choices[0].text)
    assert logprobs.token_logprobs[0] is None
    assert logprobs.token_logprobs[1:] == pytest.approx(score.log_probabilities, abs=1e-4)
    assert [token.replace(" ", "▁") for token in logprobs.tokens[1:]] == score.pieces
    for token, nats, likeliest in zip(
        logprobs.tokens[5:], logprobs.token_logprobs[5:], logprobs.top_logprobs[5:], strict=True
    ):
        assert max(likeliest, key=likeliest.__getitem__) == token
        assert likeliest[token] == pytest.approx(nats)
        assert len(likeliest) == 5
        assert sum(map(math.exp, likeliest.values())) <= 1 + 1e-6


def test_a_bias_bans_a_token_and_a_penalty_changes_the_text(client: openai.OpenAI, model: Generator) -> None:
    (plain,) = model.generate(PROMPT, max_new_tokens=1, temperature=0)
    found = client.completions.create(
        model="storybook", prompt=PROMPT, max_tokens=1, temperature=0, logit_bias={str(plain.token_ids[0]): -100}
    )
    assert found.choices[0].text != plain.text
    settings: dict[str, Any] = {"frequency_penalty": 2.0, "presence_penalty": 2.0}
    penalized = client.completions.create(model="storybook", prompt=PROMPT, max_tokens=60, temperature=0, **settings)
    expected = model.generate(PROMPT, max_new_tokens=60, temperature=0, **settings)
    assert penalized.choices[0].text == expected[0].text


def test_async_streams_run_side_by_side(server: ServerProcess, model: Generator) -> None:
    prompts = [f"The {animal}" for animal in ("fox", "bear", "owl", "cat", "dog", "hen", "cow", "mouse")]

    async def read(client: openai.AsyncOpenAI, prompt: str) -> str:
        stream = await client.completions.create(
            model="storybook", prompt=prompt, max_tokens=NUM_TOKENS, temperature=0, stream=True
        )
        return "".join([choice.text async for chunk in stream for choice in chunk.choices])

    async def read_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(read(client, prompt) for prompt in prompts))

    expected = [model.generate(prompt, max_new_tokens=NUM_TOKENS, temperature=0)[0].text for prompt in prompts]
    assert asyncio.run(read_all()) == expected


def test_a_closed_stream_frees_its_slot(server: ServerProcess, client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model="storybook", prompt=PROMPT, max_tokens=10_000, logit_bias={"1": -100, "2": -100}, stream=True
    )
    next(iter(stream))
    assert server.metric("tinyllm_running_texts") == 1
    stream.close()
    begin = time.monotonic()
    server.wait_until_idle()
    assert time.monotonic() - begin < 1


def test_errors_are_the_client_s_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-4", prompt=PROMPT)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model="storybook", prompt=PROMPT, extra_body={"temprature": 1})
    assert (wrong.value.param, wrong.value.code) == ("temprature", "unknown_parameter")
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="storybook", messages=[{"role": "user", "content": "Hello"}])


def test_a_key_is_needed_where_one_is_set(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server("--api-key", KEY)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        assert [each.id for each in client.models.list()] == ["storybook"]
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-other", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    assert server.end() == 0
    assert KEY not in server.output
    assert "sk-other" not in server.output
