"""The playground writes, branches, walks and folds; a link reproduces it; hostile texts stay texts."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from server_process import ServerProcess
from studio_visits import HOSTILE_TEXTS, Start, violations, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("loaded_model")]

MODEL = "storybook"
PLAY = f"#/playground?model={MODEL}&n=40"
STOP = """() => new Promise(done => {
    const look = () => {
        if (document.querySelector("[data-place='12']") === null) return requestAnimationFrame(look);
        document.querySelector(".button-main").click();
        done();
    };
    look();
})"""
"""Presses the button as soon as there is a text: the model writes faster than a test can look."""
RIVAL = "button.rival:not([aria-current])"


def write(page: Any, prompt: str | None = None) -> str:
    """Writes a text and waits for its end; returns it."""
    if prompt is not None:
        page.locator(".play-prompt").fill(prompt)
    page.get_by_role("button", name="Write").click()
    return finished(page)


def finished(page: Any) -> str:
    """The text of the first sample, after all are finished."""
    page.locator(".play-sample").first.wait_for()
    wait_until(
        page, "() => ![...document.querySelectorAll('.play-sample-head .hint')].some(e => /Writing/.test(e.innerText))"
    )
    return shown(page)


def shown(page: Any) -> str:
    """The text of the first sample."""
    return str(page.locator(".play-sample .shaded-body").first.text_content())


def take(page: Any, place: int, rival: int) -> str:
    """Takes a rival of the generated token at a place; returns the new text."""
    page.locator(".play-sample").first.locator(".heat:not(.heat-fixed)").nth(place).click()
    page.locator(RIVAL).nth(rival).click()
    return finished(page)


def from_server(studio: ServerProcess, **fields: Any) -> list[dict[str, Any]]:
    """The tokens that the server generates."""
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 40, "seed": 1, "rivals": 10, **fields}
    with studio.client() as client:
        lines = client.post("/studio/api/generate", json=body).text.splitlines()
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    return [each for each in data if "rivals" in each]


def test_the_text_is_the_servers_with_shades_and_rivals(visit: Start, studio: ServerProcess) -> None:
    page = visit().open(PLAY)
    text = write(page)
    tokens = from_server(studio)
    assert text == "<s>Once upon a time" + "".join(token["piece"] for token in tokens)
    shades = page.locator(".heat:not(.heat-fixed)").evaluate_all(
        "all => all.map(e => e.style.getPropertyValue('--heat'))"
    )
    likeliest = max(range(40), key=lambda place: tokens[place]["logprob"])
    unlikeliest = min(range(40), key=lambda place: tokens[place]["logprob"])
    assert int(shades[likeliest][:-1]) < int(shades[unlikeliest][:-1])
    page.locator("[data-place='7']").hover()
    page.locator(".rivals").wait_for()
    pieces = page.locator(".rival .piece").all_inner_texts()
    candidates = [tokens[2], *tokens[2]["rivals"]]
    assert [piece.replace("·", " ") for piece in pieces] == [
        each["piece"] for each in sorted(candidates, key=lambda each: -each["logprob"])
    ]


def test_branches_are_walked_folded_and_removed(visit: Start) -> None:
    page = visit().open(PLAY)
    first = write(page)
    second = take(page, 3, 2)
    third = take(page, 9, 3)
    assert len({first, second, third}) == 3
    assert page.locator(".tree-row").count() == 3
    rows = page.locator(".tree-row")
    rows.nth(0).click()
    assert shown(page) == first
    rows.nth(2).click()
    assert shown(page) == third
    page.keyboard.press("ArrowUp")
    wait_until(page, "() => document.querySelector('.tree-on').dataset.branch === '1'")
    assert shown(page) == second
    page.keyboard.press("ArrowLeft")
    wait_until(page, "() => document.querySelectorAll('.tree-row').length === 2")
    page.keyboard.press("ArrowRight")
    wait_until(page, "() => document.querySelectorAll('.tree-row').length === 3")
    page.keyboard.press("ArrowDown")
    wait_until(page, "() => document.querySelector('.tree-on').dataset.branch === '2'")
    page.keyboard.press("Delete")
    wait_until(page, "() => document.querySelectorAll('.tree-row').length === 2")
    assert shown(page) == second
    page.keyboard.press("Delete")
    wait_until(page, "() => document.querySelectorAll('.tree-row').length === 1")
    assert shown(page) == first
    assert page.evaluate("document.activeElement.dataset.branch") == "0"


def test_a_link_reproduces_texts_branches_and_sliders(visit: Start) -> None:
    page = visit().open(f"{PLAY}&model={MODEL}")
    page.get_by_role("slider", name="Temperature").fill("0.8")
    write(page, "A fox's \n“tale” & 从前")
    take(page, 4, 1)
    page.get_by_role("slider", name="Top-k").fill("20")
    take(page, 12, 2)
    page.locator(".tree-row").nth(1).click()
    page.locator("[data-branch='0'] .tree-fold").wait_for()
    texts = page.locator(".shaded-body").all_text_contents()
    tree = page.locator(".tree").inner_text()
    link = page.evaluate("location.hash")
    again = visit().open(link)
    again.locator(".tree-row").nth(2).wait_for()
    wait_until(again, "text => document.querySelector('.shaded-body')?.textContent === text", texts[0])
    wait_until(
        again, "text => document.querySelector('.tree').innerText === text", tree
    )  # each branch is written again
    finished(again)
    assert again.locator(".shaded-body").all_text_contents() == texts
    assert again.locator(".play-prompt").input_value() == "A fox's \n“tale” & 从前"
    assert again.get_by_role("slider", name="Top-k").input_value() == "20"
    assert again.evaluate("location.hash") == link


def test_sliders_cut_the_distribution_live(visit: Start) -> None:
    page = visit().open(PLAY)
    page.locator(".bars tbody tr").first.wait_for()
    assert page.locator(".bar-cut").count() == 0
    page.get_by_role("slider", name="Top-k").fill("3")
    wait_until(page, "() => document.querySelectorAll('.bar-cut').length === 37")
    assert page.locator(".play-facts dd").first.inner_text() == "3"
    before = page.locator(".bars tbody tr").first.inner_text()
    page.get_by_role("slider", name="Temperature").fill("0.2")
    wait_until(page, "old => document.querySelector('.bars tbody tr').innerText !== old", before)
    write(page)
    page.locator("[data-place='6']").first.click()
    page.get_by_text("after: Once upon a time", exact=False).wait_for()


def test_four_samples_stand_side_by_side(visit: Start, studio: ServerProcess) -> None:
    page = visit().open(PLAY)
    page.get_by_role("radio", name="4").check(force=True)
    write(page)
    texts = page.locator(".shaded-body").all_text_contents()
    assert len(texts) == 4
    for place, text in enumerate(texts):  # samples of one model have seeds that follow one another
        assert text.endswith("".join(token["piece"] for token in from_server(studio, seed=1 + place)))


def test_a_character_of_several_tokens_is_seen_and_its_parts_are_reached(visit: Start) -> None:
    page = visit().open(PLAY)
    text = write(page, "A fox 从前")
    assert text.startswith("<s>A fox 从前")
    assert page.locator(".character").first.get_attribute("title").startswith("3 tokens, together ")
    parts = page.locator(".character").first.locator(".part")
    assert parts.count() == 3
    parts.nth(1).hover()
    page.get_by_text("<BB>, part 2 of 3 of 从").wait_for()
    page.locator("[data-place='0']").focus()
    names = []
    for _ in range(parts.first.evaluate("e => Number(e.dataset.place)") + 2):
        page.keyboard.press("ArrowRight")
        names.append(page.evaluate("document.activeElement.ariaLabel"))
    assert [name.split(", ")[:2] for name in names[-3:]] == [
        [f"<{byte}>", f"part {place} of 3 of 从"] for place, byte in enumerate(("E4", "BB", "8E"), start=1)
    ]


def test_commands_name_their_text_and_scroll_on_a_phone(visit: Start) -> None:
    page = visit(width=375).open(PLAY)
    page.get_by_role("radio", name="2").check(force=True)
    write(page)
    assert page.locator("#commands-title").inner_text().endswith("1: storybook, seed 1")
    page.locator(".play-sample").nth(1).locator("[data-place='3']").click()
    wait_until(page, "() => /2: storybook, seed 2$/.test(document.querySelector('#commands-title').innerText)")
    assert page.locator(".commands pre").evaluate("e => e.scrollWidth > e.clientWidth && e.clientHeight < 60")
    assert page.evaluate("document.documentElement.scrollWidth") == 375


@pytest.mark.slow
def test_stop_keeps_the_text_and_the_link_reproduces_it(visit: Start) -> None:
    page = visit().open(f"#/playground?model={MODEL}&n=500")
    page.get_by_role("button", name="Write").click()
    page.evaluate(STOP)
    text = finished(page)
    again = visit().open(page.evaluate("location.hash"))
    assert finished(again) == text


def test_the_keyboard_alone_writes_and_branches(visit: Start) -> None:
    page = visit().open(PLAY)
    page.locator(".play-prompt").focus()
    page.keyboard.press("End")
    page.keyboard.type(", a cat")
    page.keyboard.press("Control+Enter")
    first = finished(page)
    assert first.startswith("<s>Once upon a time, a cat")
    tab_to(page, "heat")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    wait_until(page, "() => document.activeElement.classList.contains('rival')")
    page.keyboard.press("Escape")
    wait_until(page, "() => !document.querySelector('.rivals')")
    assert page.evaluate("document.activeElement.dataset.place") == "10"
    page.keyboard.press("Enter")
    wait_until(page, "() => document.activeElement.classList.contains('rival')")
    page.keyboard.press("ArrowDown")
    piece = page.evaluate("document.activeElement.querySelector('.piece').textContent")
    page.keyboard.press("Enter")
    page.locator(".tree").wait_for()
    second = finished(page)
    assert second != first
    assert page.locator("[data-place='10']").text_content() == piece.replace("·", " ")
    tab_to(page, "tree-row")
    page.keyboard.press("ArrowUp")
    wait_until(page, "text => document.querySelector('.shaded-body').textContent === text", first)


def tab_to(page: Any, name: str) -> None:
    """Presses Tab until an element of a class has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("name => document.activeElement.classList.contains(name)", name):
            return
    raise AssertionError(f"Tab reaches no {name}")


def hostile_prompts() -> list[str]:
    """50 texts that would do something if one of them were markup or code."""
    wrapped = [
        f"{before}{text}{after}" for text in HOSTILE_TEXTS for before, after in (("", ""), ("a ", " b"), ("'", "'"))
    ]
    events = ("onerror", "onload", "onfocus", "onclick", "onpointerover")
    tags = ("img src=y", "body", "input autofocus", "details open ontoggle=window.executed=1", "video><source")
    wrapped += [f"<{tag} {event}=window.executed=1>" for tag in tags for event in events]
    return [text.replace("\u0000", "\u0001") for text in [*wrapped, "$(touch executed) `id` '; exit #"]][:50]


@pytest.mark.slow
def test_50_hostile_prompts_are_shown_and_not_executed(visit: Start) -> None:
    made = visit()
    page = made.open(f"#/playground?model={MODEL}&n=1")
    prompts = hostile_prompts()
    assert len(set(prompts)) == 50
    for prompt in prompts[:40]:
        write(page, prompt)
        wait_until(page, "prompt => document.querySelector('.play-prompt').value === prompt", prompt)
        made.check()
    for prompt in prompts[40:]:
        made.go(f"#/playground?n=1&of={quote(prompt)}&by={MODEL}&set=1_0_1_0_1_1_1&node=0.0&at={quote(prompt)}")
        wait_until(page, "prompt => document.querySelector('.play-prompt').value === prompt", prompt)
        finished(page)
        assert prompt[:12] in shown(page)
        made.check()
    assert page.locator("main img, main video, main details, main iframe, main script").count() == 0


def test_commands_and_link_are_copied(visit: Start, studio: ServerProcess) -> None:
    made = visit(permissions=["clipboard-read", "clipboard-write"])
    page = made.open(PLAY)
    write(page)
    for name, beginning in (
        ("Shell", "tinyllm generate"),
        ("Python", "import tinyllm"),
        ("curl", f"curl -s {studio.url}"),
    ):
        page.get_by_role("button", name=f"Copy {name}").click()
        wait_until(page, "async text => (await navigator.clipboard.readText()).startsWith(text)", beginning)
    page.get_by_role("button", name="Copy link").click()
    wait_until(page, "async () => (await navigator.clipboard.readText()) === location.href")


def test_an_error_of_the_server_is_one_line(visit: Start) -> None:
    made = visit()
    page = made.open("#/playground?model=nobody")
    page.get_by_role("button", name="Write").click()
    page.locator(".play-sample .error-line").wait_for()
    assert "nobody" in page.locator(".play-sample .error-line").inner_text()
    made.messages.clear()  # the browser itself notes an answer of 404


def test_axe_finds_no_violation_in_a_tree(visit: Start) -> None:
    page = visit().open(f"{PLAY}&k=5")
    write(page)
    take(page, 3, 2)
    page.locator("[data-place='6']").click()
    page.locator("button.rival").first.wait_for()
    page.locator(".bar-cut").first.wait_for()
    assert violations(page) == []
    page.keyboard.press("t")  # a click on the button would close the card
    page.get_by_role("button", name="Light colours").wait_for()
    assert page.locator("button.rival").count() > 0
    assert violations(page, "color-contrast") == []


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_a_phone_needs_no_sideways_scrolling_in_a_tree(visit: Start, locale: str) -> None:
    page = visit(width=375, locale=locale).open(
        f"#/playground?of=Once+upon+a+time&by={MODEL}&by={MODEL}&set=1_0_1_0_1_40_1&node=0.0&node=1.0"
    )
    page.locator("[data-place='9']").nth(1).click()
    page.locator(RIVAL).nth(1).click()
    page.locator(".tree").wait_for()
    page.locator("[data-place='12']").first.click()
    page.locator(".rivals").wait_for()
    assert page.locator(".rivals").bounding_box()["width"] == 375
    assert page.evaluate("document.documentElement.scrollWidth") == 375
