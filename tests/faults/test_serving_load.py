"""Many streams for a long time: every text is the one that the model generates alone, and memory stays."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import tinyllm
from server_process import ServerProcess

NUM_STREAMS = 64
SETTLING = 0.3
GROWTH = 1.05
STARTS = ("Once upon a time", "The fox", "A little girl", "One day", "Tom had", "")


def requests_and_texts() -> list[tuple[dict[str, Any], str]]:
    """Greedy requests of several lengths, one beyond the context, with the text of each alone."""
    model = tinyllm.load()
    found = []
    for number, start in enumerate(STARTS):
        for length in (3, 40, 300 if number == 0 else 120):
            body = {"prompt": start, "max_tokens": length, "temperature": 0, "stream": number % 2 == 0}
            text = model.generate(start, max_new_tokens=length, temperature=0)[0].text
            found.append((body, text))
    return found


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[httpx.Response, str]:
    """A response with its text, joined from the events of a stream."""
    async with client.stream("POST", "/v1/completions", json=body) as response:
        content = (await response.aread()).decode()
    if response.status_code != 200:
        return response, content
    if not body["stream"]:
        return response, json.loads(content)["choices"][0]["text"]
    *events, last, _ = content.split("\n\n")
    assert last == "data: [DONE]"
    return response, "".join(json.loads(event[6:])["choices"][0]["text"] for event in events)


async def load(server: ServerProcess, seconds: float) -> tuple[Counter[int], list[int]]:
    """Keeps 64 requests open; returns how often each status came, and memory measured twice a second."""
    work, statuses, memory = requests_and_texts(), Counter[int](), list[int]()
    end = time.monotonic() + seconds

    async def repeat(client: httpx.AsyncClient, seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < end:
            body, text = chance.choice(work)
            response, found = await ask(client, body)
            statuses[response.status_code] += 1
            if response.status_code == 503:
                assert int(response.headers["retry-after"]) >= 1
                await asyncio.sleep(0.05)
            else:
                assert (response.status_code, found) == (200, text), body

    async def measure() -> None:
        while time.monotonic() < end:
            memory.append(server.memory_bytes())
            await asyncio.sleep(0.5)

    limits = httpx.Limits(max_connections=NUM_STREAMS)
    async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits, trust_env=False) as client:
        await asyncio.gather(measure(), *(repeat(client, seed) for seed in range(NUM_STREAMS)))
    return statuses, memory


@pytest.mark.promise("20 64 streams, seconds: texts equal to solo, no 5xx but 503, memory +5 %", fast=10, full=600)
def test_texts_under_load_equal_those_alone(
    count: int, tell: Callable[[str], None], start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server("--max-slots", 32, "--max-queue", 16)
    statuses, memory = asyncio.run(load(server, count))
    assert set(statuses) <= {200, 503}
    assert statuses[200] > NUM_STREAMS
    assert statuses[503], "the queue was never full"
    settled = memory[int(len(memory) * SETTLING) :]
    assert max(settled) <= settled[0] * GROWTH
    server.wait_until_idle()
    assert len(server.said) == 1, server.output
    growth = max(settled) / settled[0] - 1
    tell(f"{statuses[200]} texts, {statuses[503]} refused with 503; memory {growth:+.1%}")
