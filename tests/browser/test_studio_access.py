"""The keyboard reaches everything, axe finds no violation, and a server with a key is asked with it."""

from typing import Any

import pytest

from server_process import KEY, ServerProcess
from studio_visits import BOTH, FIRST, VIEWS, Start, violations, violations_in_both_themes, wait_until

pytestmark = pytest.mark.browser


def focused(page: Any) -> str:
    """The name of the element with the focus, or its text."""
    return str(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText"))


def test_runs_by_keyboard_alone(visit: Start) -> None:
    page = visit().open()
    page.locator(".chart-large canvas").wait_for()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.checked")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.locator(".summary").nth(1).wait_for()
    page.locator(".chart-large .chart-frame").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.locator(".chart-x").first.wait_for()
    assert page.locator(".chart-large .chart-x").inner_text().startswith("Step 3")
    page.keyboard.press("+")
    wait_until(page, "() => location.hash.includes('zoom=')")
    zoomed = page.evaluate("location.hash")
    page.keyboard.press("Shift+ArrowLeft")
    wait_until(page, "old => location.hash !== old", zoomed)
    page.keyboard.press("0")
    wait_until(page, "() => !location.hash.includes('zoom=')")


def test_every_control_can_be_reached_and_shows_its_focus(visit: Start) -> None:
    page = visit().open(BOTH)
    page.locator(".sample").first.wait_for()
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        seen.add(page.evaluate("document.activeElement.className || document.activeElement.type || ''"))
        assert page.evaluate(
            "(({ activeElement: at }) => [at, at.closest('label'), at.nextElementSibling]"
            ".some(each => each && getComputedStyle(each).outlineStyle !== 'none'))(document)"
        ), page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
    assert {"chart-frame", "samples", "table-frame", "checkbox", "range", "radio"} <= seen


def test_help_lists_the_keys_and_gives_the_focus_back(visit: Start) -> None:
    page = visit().open("#/data")
    page.locator(".document").first.wait_for()
    page.get_by_role("tab", name="Documents").focus()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
    assert focused(page) == "Documents"
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.activeElement.innerText === 'Statistics'")  # drawn after the key
    page.keyboard.press("1")
    page.locator(".summary").wait_for()
    page.keyboard.press("4")
    page.locator(".chart canvas").first.wait_for()
    assert page.get_by_role("tab", name="Statistics").get_attribute("aria-selected") == "true"


def test_keys_of_one_sign_can_be_switched_off(visit: Start) -> None:
    page = visit().open("#/data")
    page.keyboard.press("?")
    page.get_by_label("Keys of a single sign").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    assert page.evaluate("location.hash").startswith("#/data")


def test_arrow_keys_go_through_tokens(visit: Start) -> None:
    page = visit().open("#/data?part=tokenizer&text=red+ball")
    page.locator(".token-body").focus()
    page.keyboard.press("End")
    last = page.locator("tbody tr").last
    assert page.locator(".token-line").inner_text().endswith(f"bytes {last.locator('code').inner_text()}")


def test_axe_finds_no_violation(visit: Start) -> None:
    made = visit()
    page = made.open()
    for view in [each for each in VIEWS if each not in ("#/inside", "#/playground")]:  # these have tests of their own
        made.go(view)
        made.wait_for_content()
        assert violations_in_both_themes(page) == [], view


def test_axe_finds_no_violation_in_the_help(visit: Start) -> None:
    page = visit().open("#/data")
    page.locator(".document").first.wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    assert violations(page) == []


def test_the_page_asks_for_the_key(visit: Start, locked_studio: ServerProcess) -> None:
    page = visit(address=locked_studio.url).open()
    page.get_by_role("dialog").wait_for()
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The server refused this key").wait_for()
    page.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    page.locator(".summary h2").wait_for()
    assert page.locator(".summary h2").inner_text() == FIRST
    assert page.evaluate("Object.keys(localStorage).length") == 0
