"""News reach the event loop at once where a client waits for them, and together where many texts run."""

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

from tinyllm.serving.deliveries import Deliveries, Inbox, Unread
from tinyllm.serving.request import News, Step
from tinyllm.serving.streams import EventResponse


def deliver_steps(num_texts: int, steps: list[Step | Exception]) -> list[int]:
    """The number of texts' news after each of `steps`, which all texts get at once; each step is delivered in turn."""

    async def run() -> list[int]:
        deliveries = Deliveries()
        deliveries.open()
        pacer, arrived, counts = deliveries.new_pacer(), [0], []

        def count(index: int, step: Step | Exception) -> None:
            arrived[0] += 1

        for step in steps:
            news: list[News] = [(count, index, step) for index in range(num_texts)]
            pacer.hand_over(news)
            await asyncio.sleep(0)
            counts.append(arrived[0])
        return counts

    return asyncio.run(run())


FIRST, NEXT, LAST = Step("Once", (), is_first=True), Step(" upon", ()), Step(".", (), "length")


def test_first_and_last_news_are_delivered_at_once() -> None:
    assert deliver_steps(1_000, [FIRST, LAST, FIRST, ValueError("no"), FIRST]) == [1_000, 2_000, 3_000, 4_000, 5_000]


def test_news_between_are_delivered_together_and_none_is_lost() -> None:
    assert deliver_steps(1_000, [FIRST, NEXT, NEXT, NEXT, LAST]) == [1_000, 1_000, 1_000, 1_000, 5_000]


def test_a_step_without_news_delivers_those_that_are_held() -> None:
    async def run() -> tuple[int, int]:
        deliveries, arrived = Deliveries(), []
        deliveries.open()
        pacer = deliveries.new_pacer()
        for step in (FIRST, NEXT):
            pacer.hand_over([(lambda *news: arrived.append(news), index, step) for index in range(1_000)])
            await asyncio.sleep(0)
        before = len(arrived)
        pacer.hand_over([])
        await asyncio.sleep(0)
        return before, len(arrived)

    assert asyncio.run(run()) == (1_000, 2_000)


def test_a_step_without_news_delivers_nothing() -> None:
    assert deliver_steps(0, [FIRST, NEXT]) == [0, 0]


def test_an_inbox_gives_nothing_after_a_while_and_loses_nothing() -> None:
    async def run() -> tuple[bool, str]:
        inbox = Inbox(1, keeps_tokens=False)
        is_empty = await inbox.take(0.01) == {}
        asyncio.get_running_loop().call_later(0.01, inbox.put, 0, LAST)
        return is_empty, (await inbox.take(60))[0].text

    assert asyncio.run(run()) == (True, ".")


def test_news_that_come_at_the_same_moment_as_the_limit_are_taken() -> None:
    async def run() -> str:
        inbox, loop = Inbox(1, keeps_tokens=False), asyncio.get_running_loop()
        taking = asyncio.create_task(inbox.take(0.01))
        await asyncio.sleep(0)
        loop.call_later(0.011, inbox.put, 0, LAST)
        time.sleep(0.05)  # The loop is late, so the limit and the news come in the same turn
        return (await taking)[0].text

    assert asyncio.run(run()) == "."


class Words:
    """A streamed answer whose events are the texts themselves."""

    def event(self, news: dict[int, Unread]) -> bytes:
        return news[0].text.encode()

    def last_event(self) -> bytes:
        return b""


def test_a_stream_has_each_text_once_if_the_end_comes_while_the_client_is_slow() -> None:
    async def run() -> bytes:
        inbox = Inbox(1, keeps_tokens=False)
        sent: list[bytes] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message.get("body", b""))
            if sent[-1] == b"Once":
                inbox.put(0, LAST)

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        inbox.put(0, FIRST)
        await EventResponse(inbox, Words(), end=b"!")({}, receive, send)
        return b"".join(sent)

    assert asyncio.run(run()) == b"Once.!"
