"""Runs and Data show what lies in the folder, live, by a link, in both languages, and on a phone."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from studio_visits import BOTH, FIRST, HOSTILE_NAME, HOSTILE_TEXTS, SECOND, SECONDS, VIEWS, Start, wait_until
from tinyllm import storage

pytestmark = pytest.mark.browser


def words(page: Any) -> str:
    """Everything that the page shows."""
    return str(page.locator("main").inner_text())


def test_runs_show_curves_samples_and_settings(visit: Start, studio_folder: Path) -> None:
    page = visit().open()
    page.locator(".sample").first.wait_for()
    shown = words(page)
    records = list(storage.read_json_lines(studio_folder / "runs" / FIRST / "metrics.jsonl"))
    best = min(record["validation_loss"] for record in records if "validation_loss" in record)
    assert f"best {best:.3f}" in shown
    assert "step 40 of 40" in shown
    assert page.locator(".chart canvas").count() >= 5
    samples = list(storage.read_json_lines(studio_folder / "runs" / FIRST / "samples.jsonl"))
    assert page.locator(".sample").last.inner_text().split() == [
        *f"Step 40 validation loss {records[-1]['validation_loss']:.3f}".split(),
        *f"{samples[-1]['prompt']}{samples[-1]['text']}".split(),
    ]
    assert page.get_by_role("row", name=re.compile("schedule.peak")).inner_text().split() == ["schedule.peak", "0.005"]


def test_several_runs_lie_over_one_another_and_differ_in_settings(visit: Start) -> None:
    page = visit().open()
    page.get_by_role("checkbox", name=re.compile(SECOND)).check(force=True)
    page.locator(".summary").nth(1).wait_for()
    names = page.locator(".chart-large .chart-value-name").all_inner_texts()
    assert names == [FIRST, SECOND]
    keys = page.locator("tbody th code").all_inner_texts()
    assert keys == ["schedule.num_steps", "schedule.peak", "schedule.warmup_steps"]


def test_charts_follow_a_folder_that_grows(visit: Start, growing_run: tuple[str, Callable[[], None]]) -> None:
    run, grow = growing_run
    page = visit().open(f"#/runs?run={quote(run, safe='')}")
    page.locator(".summary .state-running").wait_for()
    drawn = page.locator(".chart-large .chart-frame").get_attribute("aria-label")
    for _ in range(6):
        step = shown_step(page)
        grow()
    wait_until(page, "step => document.querySelector('.summary-step').innerText !== step", f"step {step} of 40")
    wait_until(page, "old => document.querySelector('.chart-large .chart-frame').ariaLabel !== old", drawn)


@pytest.mark.slow
def test_charts_follow_a_training(visit: Start, live_run: str) -> None:
    page = visit().open(f"#/runs?run={quote(live_run, safe='')}")
    page.locator(".summary .state-running").wait_for(timeout=3 * SECONDS)
    first = shown_step(page)
    begin = time.monotonic()
    while shown_step(page) <= first:
        assert time.monotonic() - begin < 30, "the page does not follow the run"
        page.wait_for_timeout(200)
    drawn = page.locator(".chart-large .chart-frame").get_attribute("aria-label")
    wait_until(page, "old => document.querySelector('.chart-large .chart-frame').ariaLabel !== old", drawn)


def shown_step(page: Any) -> int:
    """The step in the card of the run."""
    found = re.search(r"step ([\d,]+) of", page.locator(".summary-step").inner_text())
    assert found is not None
    return int(found[1].replace(",", ""))


@pytest.mark.slow
def test_a_link_shows_the_same_again(visit: Start) -> None:
    first = visit()
    page = first.open(BOTH)
    page.locator(".summary").nth(1).wait_for()
    page.get_by_role("radio", name="Tokens").check()
    page.get_by_label("Log y").check()
    page.get_by_label("Smoothing").fill("0.5")
    drag_across(page, 0.25, 0.5)
    page.get_by_role("radio", name="One after another").check()
    wait_until(page, "() => location.hash.includes('row=row')")
    link = page.evaluate("location.hash")
    assert all(name in link for name in ("x=tokens", "logy=1", "smooth=0.5", "zoom="))
    again = visit().open(link)
    again.locator(".summary").nth(1).wait_for()
    again.locator(".sample").first.wait_for()
    for each in (page, again):
        assert each.get_by_label("Log y").is_checked()
        assert each.get_by_label("Smoothing").input_value() == "0.5"
        assert each.get_by_label("One after another").is_checked()
        assert each.get_by_role("button", name="Show all").is_enabled()
    seen = ".with-side > .stack"  # the list beside it may grow
    assert again.locator(seen).inner_text() == page.locator(seen).inner_text()


def drag_across(page: Any, start: float, end: float) -> None:
    """Drags over the large chart, from a share of its width to another."""
    box = page.locator(".chart-large .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * start, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * end, box["y"] + 60, steps=4)
    page.mouse.up()
    wait_until(page, "() => location.hash.includes('zoom=')")


def test_a_double_click_shows_everything_again(visit: Start) -> None:
    page = visit().open()
    page.locator(".chart-large .u-over").wait_for()
    drag_across(page, 0.2, 0.6)
    page.locator(".chart-large .u-over").dblclick(position={"x": 100, "y": 40})
    wait_until(page, "() => !location.hash.includes('zoom=')")


def test_data_shows_documents_statistics_and_pieces(visit: Start) -> None:
    page = visit().open("#/data")
    page.locator(".document").first.wait_for()
    assert page.locator(".document .token").count() > 50
    assert page.get_by_text(re.compile(r"Documents 1 to 10 of \d+")).count() > 0
    assert page.locator(".document h2").first.inner_text() == "Document 1"
    assert all(page.locator(".document .token-line").all_inner_texts())
    page.get_by_label("Search in documents").fill("number")
    page.get_by_text("First 20 matches").wait_for()
    page.get_by_role("button", name="Search on").click()
    page.get_by_text(re.compile(r"(Matches: |First )\d\d")).wait_for()
    page.get_by_label("Search in documents").fill("owl number 2 ")
    wait_until(page, "() => document.querySelector('.match mark')?.innerText === 'owl number 2 '")
    assert page.locator(".match mark").first.inner_text() == "owl number 2 "
    page.locator(".match").first.click()
    page.locator(".document").first.wait_for()
    assert "owl number 2 saw" in page.locator(".document .token-body").first.inner_text()
    page.get_by_role("tab", name="Statistics").click()
    page.locator(".chart canvas").nth(1).wait_for()
    assert "Once upon a time the bear number 4 saw" in page.get_by_role("group", name="Duplicates").inner_text()
    page.get_by_role("tab", name="Tokenizer").click()
    page.get_by_label("Text", exact=True).fill("the red 好")
    page.get_by_role("row", name=re.compile("BD")).wait_for()
    assert page.locator("tbody code").all_inner_texts()[-3:] == ["E5", "A5", "BD"]
    assert page.locator(".character-text").all_inner_texts() == ["好"]


def test_two_tokenizers_stand_side_by_side(visit: Start) -> None:
    page = visit().open("#/data?part=tokenizer&text=The+little+dog")
    page.get_by_label("Compare with").select_option(label="storybook (2,048)")
    page.locator(".side-by-side .facts").nth(1).wait_for()
    counts = [int(page.locator(".side-by-side .facts").nth(k).locator("dd").first.inner_text()) for k in (0, 1)]
    assert counts[1] == 3
    assert counts[0] > counts[1]


def test_both_languages(visit: Start) -> None:
    page = visit(locale="zh-CN").open("#/data")
    page.locator(".document").first.wait_for()
    assert page.get_by_role("link", name="数据").get_attribute("aria-current") == "page"
    assert page.locator("html").get_attribute("lang") == "zh"
    assert not re.search(r"[a-z]{3,}", page.locator(".page-tools, .views").all_inner_texts()[0])
    page.get_by_role("button", name="English").click()
    assert page.get_by_role("link", name="Data").get_attribute("aria-current") == "page"
    page.reload()
    page.get_by_role("link", name="Data").wait_for()
    assert page.locator("html").get_attribute("lang") == "en"


def test_the_theme_can_be_switched_and_is_kept(visit: Start) -> None:
    page = visit(color_scheme="light").open("#/data")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark colours").click()
    dark = page.evaluate(ground)
    assert light != dark
    page.reload()
    page.get_by_role("button", name="Light colours").wait_for()
    assert page.evaluate(ground) == dark


@pytest.mark.parametrize("locale", ["en-US", pytest.param("zh-CN", marks=pytest.mark.slow)])
def test_a_phone_needs_no_sideways_scrolling(visit: Start, locale: str) -> None:
    made = visit(width=375, locale=locale)
    page = made.open()
    for view in VIEWS:
        made.go(view)
        made.wait_for_content()
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, view


def test_hostile_names_and_texts_are_shown_and_not_executed(visit: Start) -> None:
    made = visit()
    page = made.open(f"#/runs?run={quote(f'runs/{HOSTILE_NAME}', safe='')}")
    page.locator(".summary h2").wait_for()
    assert page.locator(".summary h2").inner_text() == HOSTILE_NAME
    for split in ("train", "validation"):
        for start in range(0, 80, 10):
            made.go(f"#/data?split={split}&from={start}")
            page.locator(".document, .view-data .hint").first.wait_for()
            made.check()
    for text in HOSTILE_TEXTS:
        made.go(f"#/data?part=tokenizer&text={quote(text)}")
        page.locator("tbody tr").first.wait_for()
        made.go(f"#/data?q={quote(text)}&shards={quote(text)}&split={quote(text)}&from={quote(text)}")
        page.locator("[aria-busy=false]").wait_for()
        made.check()
