"""The view into a model shows what the server traced, by pointer and by keyboard."""

from typing import Any

import pytest

from server_process import ServerProcess
from studio_visits import Start, violations_in_both_themes, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("loaded_model")]

TEXT = "Once upon a time, there was a little dog. The little dog"
INSIDE = "#/inside?model=storybook&text=" + TEXT.replace(" ", "+")


def trace(studio: ServerProcess, text: str = TEXT) -> dict[str, Any]:
    """The server's answer."""
    with studio.client() as client:
        found: dict[str, Any] = client.post("/studio/api/trace", json={"model": "storybook", "text": text}).json()
    return found


def open_inside(visit: Start, hash: str = INSIDE, **options: Any) -> Any:
    """A page that shows the inside of a text."""
    page = visit(**options).open(hash)
    page.locator(".lens tbody tr").first.wait_for()
    return page


def test_pieces_losses_and_lens_are_the_servers(visit: Start, studio: ServerProcess) -> None:
    page, found = open_inside(visit), trace(studio)
    pieces = [token["piece"] for token in found["tokens"]]
    assert page.locator("[aria-labelledby=loss-title] [data-place]").all_text_contents() == pieces
    page.locator("[aria-labelledby=loss-title] [data-place='6']").hover()
    line = page.locator("[aria-labelledby=loss-title] .token-line")
    wait_until(page, "() => document.querySelector('.token-line').innerText.startsWith('Token 7:')")
    assert f"loss {found['loss'][6]:.2f}" in line.inner_text()
    assert page.locator(".lens tbody tr").count() == found["layers"] + 1
    last = page.locator(".lens tbody tr").last.locator(".piece").all_text_contents()
    assert last == [each[0]["piece"].replace(" ", "·") for each in found["lens"][-1]]


def test_the_maps_name_their_tokens_and_say_what_colours_mean(visit: Start) -> None:
    page = open_inside(visit, "#/inside?model=storybook&text=A+fox+从+ran")
    for side in ("row", "column"):
        names = page.locator(f".map-name-{side}").all_text_contents()
        assert names[:3] == ["<s>", "A", "·fox"]
        assert names[-4:] == ["从 1/3", "从 2/3", "从 3/3", "·ran"]
    assert page.locator(".lens thead .piece").all_text_contents()[-1] == "·ran"
    assert "从" in page.locator("[aria-labelledby=loss-title] .character-text").all_text_contents()
    assert "probability of that token" in page.locator(".lens-legend").inner_text()
    assert page.locator(".lens-scale .lens-cell").count() == 5


def test_a_token_shows_what_it_looks_at_in_every_head(visit: Start, studio: ServerProcess) -> None:
    page, found = open_inside(visit), trace(studio)
    role = max((each for each in found["roles"] if each["role"] != "beginning"), key=lambda each: each["score"])
    name = page.get_by_role("heading", name=f"Layer {role['layer'] + 1}, head {role['head'] + 1}")
    assert f"{role['score']:.2f}" in name.inner_text()
    assert (
        page.locator(".role-head[aria-pressed=true]")
        .first.inner_text()
        .startswith(f"{role['layer'] + 1}.{role['head'] + 1}")
    )
    line = page.locator("[aria-labelledby=attention-title] .token-line")
    seen = set()
    grid = page.locator(".heads-frame")
    grid.focus()
    for _ in range(found["layers"] + 1):
        page.keyboard.press("ArrowUp")
    for _ in range(found["heads"] + 1):
        page.keyboard.press("ArrowLeft")
    page.get_by_role("heading", name="Layer 1, head 1").wait_for()
    for head in range(found["heads"]):
        page.get_by_role("heading", name=f"Layer 1, head {head + 1}").wait_for()
        seen.add(line.inner_text())
        page.keyboard.press("ArrowRight")
    assert len(seen) == found["heads"]
    page.locator("[aria-labelledby=attention-title] [data-place='3']").hover()
    wait_until(
        page, "() => [...document.querySelectorAll('.token-line')].some(e => e.innerText.startsWith('·a looks at:'))"
    )


def test_the_keyboard_moves_through_tokens_and_the_lens(visit: Start, studio: ServerProcess) -> None:
    page, found = open_inside(visit), trace(studio)
    page.locator("[aria-labelledby=loss-title] [tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    wait_until(page, "() => location.hash.includes('token=1')")
    page.locator(".lens [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    best = found["lens"][-2][1]
    wait_until(
        page,
        "() => document.querySelector('[aria-labelledby=lens-title] .token-line').innerText.includes('After token 2,')",
    )
    line = page.locator("[aria-labelledby=lens-title] > .token-line").inner_text()
    assert all(each["piece"].replace(" ", "·") in line for each in best)


@pytest.mark.slow
def test_a_link_shows_the_same_head_and_token(visit: Start) -> None:
    page = open_inside(visit)
    page.get_by_role("combobox", name="Layer").select_option("4")
    page.get_by_role("combobox", name="Head").select_option("2")
    page.locator("[aria-labelledby=loss-title] [data-place='4']").click()
    wait_until(page, "() => location.hash.includes('token=4')")
    page.mouse.move(0, 0)
    text = page.locator("main").inner_text()
    again = open_inside(visit, page.evaluate("location.hash"))
    assert again.locator("main").inner_text() == text


@pytest.mark.slow
def test_hostile_and_long_texts(visit: Start) -> None:
    made = visit()
    page = made.open("#/inside?model=storybook")
    for text in ("<img src=x onerror=window.executed=1>", "</textarea><script>window.executed=1</script>"):
        page.locator("textarea").fill(text)
        wait_until(page, "text => document.querySelector('.picked-body')?.textContent.includes(text)", text)
        made.check()
    page.locator("textarea").fill("word " * 300)
    page.locator(".error-line").wait_for()
    assert "256" in page.locator(".error-line").inner_text()
    made.messages.clear()  # the browser itself notes an answer of 400


def test_axe_finds_no_violation_inside(visit: Start) -> None:
    assert violations_in_both_themes(open_inside(visit)) == []


@pytest.mark.parametrize("locale", ["en-US", pytest.param("zh-CN", marks=pytest.mark.slow)])
def test_a_phone_needs_no_sideways_scrolling_inside(visit: Start, locale: str) -> None:
    page = open_inside(visit, width=375, locale=locale)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
