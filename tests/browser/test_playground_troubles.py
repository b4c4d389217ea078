"""A text or an answer that fails loses nothing: the link keeps it, and it is written again; chat leaves it out."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from server_process import ServerProcess
from studio_visits import Start, wait_until
from tinyllm.model_dir import bundled_model

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("loaded_model")]

MODEL = "storybook"
FOX = "🦊从前🦊"
GENERATE, CHAT = re.compile("/studio/api/generate"), re.compile("/v1/chat/completions")
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def chatty(studio_folder: Path, studio: ServerProcess) -> Iterator[str]:
    """The id of a model with a chat template."""
    path = studio_folder / "chatty"
    shutil.copytree(bundled_model(), path)
    (path / "manifest.json").unlink()
    settings = json.loads((path / "tokenizer_config.json").read_text("utf-8"))
    (path / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": CHAT_TEMPLATE}), "utf-8")
    with studio.client() as client:
        while path.name not in client.get("/studio/api/library").text:
            time.sleep(0.1)
    yield path.name
    shutil.rmtree(path)


def no_answer(route: Any) -> None:
    """The answer of a server that has ended."""
    route.abort("connectionrefused")


def address(page: Any) -> dict[str, list[str]]:
    """The fields of the page's address."""
    return parse_qs(urlsplit(page.evaluate("location.hash").removeprefix("#")).query)


def texts(page: Any) -> list[str]:
    """The texts of all samples, after they are finished."""
    page.locator(".play-sample").first.wait_for()
    wait_until(
        page,
        "() => [...document.querySelectorAll('.play-sample-head .hint')].every(e => / tokens/.test(e.innerText))",
    )
    return list(page.locator(".play-sample .shaded-body").all_text_contents())


def test_a_link_outlives_a_server_that_is_away(visit: Start) -> None:
    made = visit()
    page = made.open(f"#/playground?model={MODEL}&model={MODEL}&n=20")
    page.get_by_role("button", name="Write").click()
    first = texts(page)
    page.locator(".play-sample").first.locator(".heat:not(.heat-fixed)").nth(4).click()
    page.locator("button.rival:not([aria-current])").nth(1).click()
    page.locator(".tree-row").nth(1).wait_for()
    branch = texts(page)
    link = page.evaluate("location.hash")
    page.route(GENERATE, no_answer)
    page.reload()
    page.locator(".play-sample .error-line").nth(1).wait_for()
    assert page.evaluate("location.hash") == link
    assert page.locator(".play-sample").first.get_by_role("button", name="Go on").is_disabled()
    page.unroute(GENERATE, no_answer)
    for place in (0, 1):
        page.locator(".play-sample").nth(place).get_by_role("button", name="Try again").click()
    assert texts(page) == branch
    page.locator(".tree-row").first.click()
    assert texts(page) == first
    wait_until(page, "() => !document.querySelector('.error-line')")
    made.messages.clear()  # the browser itself notes requests without an answer


def test_texts_are_written_when_the_server_is_back(visit: Start) -> None:
    made = visit()
    page = made.open(f"#/playground?model={MODEL}&n=20")
    page.locator(".bars tbody tr").first.wait_for()
    page.route(re.compile("/studio/api/"), no_answer)
    page.get_by_role("button", name="Write").click()
    page.locator(".play-sample .error-line").wait_for()
    assert address(page)["set"] == ["1_0_1_0_1_20_1"]
    page.locator("body > * .error-line", has_text="does not answer").first.wait_for()
    page.unroute(re.compile("/studio/api/"))
    page.get_by_role("button", name="Try again").first.click()
    assert texts(page)[0].startswith("<s>Once upon a time")
    made.messages.clear()


def test_a_model_that_was_away_writes_the_text_of_the_link(visit: Start, studio_folder: Path) -> None:
    made = visit()
    page = made.open("#/playground?of=A+fox&by=away&set=1_0_1_0_1_9_1&node=0.0")
    page.locator(".play-sample .error-line").wait_for()
    assert address(page)["set"] == ["1_0_1_0_1_9_1"]
    path = studio_folder / "away"
    shutil.copytree(bundled_model(), path)
    try:
        wait_until(page, "async () => (await (await fetch('/studio/api/library')).text()).includes('\"away\"')")
        page.get_by_role("button", name="Try again").click()
        assert texts(page)[0].startswith("<s>A fox")
        assert page.locator(".play-sample .error-line").count() == 0
    finally:
        shutil.rmtree(path)
    made.messages.clear()


def test_a_text_that_was_stopped_at_once_goes_on(visit: Start) -> None:
    page = visit().open(f"#/playground?n=8&of=A+fox&by={MODEL}&set=1_0_1_0_1_0_1&node=0.0")
    page.get_by_role("button", name="Go on").click()
    page.locator(".play-sample .shaded-body").wait_for()
    assert texts(page)[0].startswith("<s>A fox")


def test_a_long_prompt_keeps_the_models_and_stays_in_its_field(visit: Start) -> None:
    page = visit().open(f"#/playground?prompt=short&model={MODEL}&model={MODEL}&n=4")
    prompt = "a fox. " * 600
    page.locator(".play-prompt").fill(prompt)
    page.route(GENERATE, lambda route: route.fulfill(body='event: done\ndata: {"reason": "length"}\n\n'))
    page.get_by_role("button", name="Write").click()
    page.locator(".play-sample").nth(1).wait_for()
    assert address(page)["model"] == [MODEL, MODEL]
    assert "of" not in address(page)
    assert page.locator(".play-prompt").input_value() == prompt
    assert page.get_by_text("more than 4,000 characters").count() == 1


def say(page: Any, text: str) -> None:
    """Says something in the chat."""
    page.get_by_label("Say something").fill(text)
    page.keyboard.press("Enter")


def answered(page: Any, count: int) -> None:
    """Waits until the conversation has a number of answers."""
    wait_until(page, "n => document.querySelectorAll('.turn .shaded-body:not(.shaded-writing)').length === n", count)


def entry(byte: int) -> dict[str, Any]:
    """A token of one byte as OpenAI's log-probabilities have it."""
    return {"token": f"bytes:\\x{byte:02x}", "logprob": -1.0, "bytes": [byte]}


def test_chat_shows_characters_of_several_tokens(visit: Start, chatty: str) -> None:
    page = visit().open(f"#/playground?model={chatty}&mode=chat&n=4")  # `model` names the chat's model too
    assert page.get_by_label("Model").input_value() == chatty
    pieces = [{**entry(byte), "top_logprobs": [entry(byte), entry(0xE4)]} for byte in FOX.encode()]
    chunk = {"choices": [{"delta": {"content": FOX}, "logprobs": {"content": pieces}, "finish_reason": "stop"}]}
    page.route(CHAT, lambda route: route.fulfill(body=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"))
    say(page, FOX)
    answered(page, 1)
    assert page.locator(".turn .shaded-body").text_content() == FOX
    assert page.locator(".turn .character").count() == 4
    page.locator(".turn [data-place='1']").hover()
    assert "<E4>" in page.locator(".rivals").inner_text()


def test_a_failed_turn_is_left_out_and_asked_again(visit: Start, chatty: str) -> None:
    made = visit()
    page = made.open(f"#/playground?mode=chat&with={chatty}&n=4")
    bodies: list[Any] = []

    def note(request: Any) -> None:
        if CHAT.search(request.url):
            bodies.append(request.post_data_json)

    page.on("request", note)
    page.route(CHAT, no_answer)
    say(page, "lost")
    page.get_by_text("not part of the conversation").wait_for()
    assert page.locator(".commands").count() == 0
    page.unroute(CHAT, no_answer)
    say(page, "A fox")
    answered(page, 1)
    assert [each["content"] for each in bodies[-1]["messages"]] == ["A fox"]
    assert "lost" not in page.locator(".commands").inner_text()
    assert len(address(page)["say"]) == 1
    page.get_by_role("button", name="Try again").click()
    answered(page, 2)
    assert [each["content"] for each in bodies[-1]["messages"]][::2] == ["A fox", "lost"]
    assert all(each["content"] for each in bodies[-1]["messages"])
    wait_until(page, "() => !document.querySelector('.error-line')")
    made.messages.clear()


def test_a_conversation_that_is_too_long_says_what_to_do(visit: Start, chatty: str) -> None:
    made = visit()
    page = made.open(f"#/playground?mode=chat&with={chatty}&n=4")
    say(page, "A fox")
    answered(page, 1)
    say(page, "a fox. " * 400)
    page.get_by_text("begin a new chat").wait_for()
    page.get_by_role("button", name="Edit").click()
    assert page.get_by_label("Say something").input_value() == "a fox. " * 400
    assert page.locator(".turn").count() == 1
    say(page, "and")
    answered(page, 2)
    made.messages.clear()  # the browser itself notes an answer of 400


def test_a_chat_of_a_link_waits_for_the_server(visit: Start, chatty: str) -> None:
    made = visit()
    page = made.open("#/playground")
    page.locator(".play-prompt").wait_for()
    page.route(CHAT, no_answer)
    link = f"#/playground?mode=chat&with={chatty}&say=1_0_1_0_1_4_1+A+fox&say=1_0_1_0_1_4_1+and"
    made.go(link)
    page.locator(".turn .error-line").wait_for()
    assert len(address(page)["say"]) == 2
    page.unroute(CHAT, no_answer)
    page.get_by_role("button", name="Try again").first.click()
    answered(page, 2)
    assert len(address(page)["say"]) == 2
    made.messages.clear()


@pytest.mark.slow
def test_chat_streams_and_a_link_holds_it_again(visit: Start, chatty: str) -> None:
    page = visit().open(f"#/playground?mode=chat&with={chatty}&n=20")
    for number, text in enumerate(("Once upon a time", "<img src=x onerror=window.executed=1>"), start=1):
        page.get_by_label("Say something").fill(text)
        page.keyboard.press("Enter")
        wait_until(page, "n => new URLSearchParams(location.hash.split('?')[1]).getAll('say').length === n", number)
    answers = page.locator(".turn .shaded-body").all_text_contents()
    assert len(answers) == 2
    page.locator(".turn [data-place='3']").first.hover()
    page.locator(".rival").first.wait_for()
    assert page.locator("button.rival").count() == 0
    again = visit().open(page.evaluate("location.hash"))
    again.locator(".turn .shaded-body").nth(1).wait_for()
    wait_until(again, "text => document.querySelectorAll('.turn .shaded-body')[1].textContent === text", answers[1])
    assert again.locator(".turn .shaded-body").all_text_contents() == answers
