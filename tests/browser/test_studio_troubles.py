"""If the server, the key, a run or values are missing, the page says so once, and goes on by itself."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from server_process import KEY, WITH_TORCH, ServerProcess
from studio_visits import FIRST, SECOND, Start, wait_until
from tinyllm import storage

pytestmark = pytest.mark.browser

API = re.compile("/studio/api/")
HALF_WIDTH = re.compile(r"[\u4e00-\u9fff][,:;!?()]|[,:;!?()][\u4e00-\u9fff]")
"""A Chinese character beside a sign of half width."""
SEEN = """() => {
    const canvas = document.querySelector(".chart-large canvas");
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const probe = document.body.appendChild(document.createElement("span"));
    probe.style.color = "var(--series-1)";
    const color = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
    probe.remove();
    let count = 0;
    for (let k = 0; k < pixels.length; k += 4) count += color.every((each, c) => Math.abs(each - pixels[k + c]) < 3);
    return count;
}"""
"""Pixels of the first chart in the colour of the first run."""

MakeRun = Callable[..., str]


@pytest.fixture
def make_run(studio_folder: Path) -> Iterator[MakeRun]:
    """A function that writes the log of a run that has a number of updates; it returns the run's id."""
    made: list[Path] = []

    def make(name: str, num_lines: int) -> str:
        path = studio_folder / "runs" / name
        shutil.copytree(studio_folder / "runs" / FIRST, path, ignore=shutil.ignore_patterns(".lock", "model"))
        made.append(path)
        records = storage.read_json_lines(studio_folder / "runs" / FIRST / "metrics.jsonl")
        updates = [record for record in records if "validation_loss" not in record][:num_lines]
        (path / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in updates), "utf-8")
        return f"runs/{name}"

    yield make
    for path in made:
        shutil.rmtree(path)


def no_answer(route: Any) -> None:
    """The answer of a server that has ended."""
    route.abort("connectionrefused")


@pytest.mark.parametrize("view", ["#/data?part=statistics", f"#/runs?run={quote(f'runs/{SECOND}', safe='')}"])
def test_a_view_comes_back_with_the_server(visit: Start, view: str) -> None:
    made = visit()
    page = made.open("#/playground")
    page.locator(".play-prompt").wait_for()
    page.route(API, no_answer)
    made.go(view)
    page.locator(".error-line").wait_for()
    assert page.locator(".error-line").count() == 1  # several parts of a view fail for one reason
    assert "does not answer" in page.locator(".error-line").inner_text()
    page.unroute(API, no_answer)
    page.get_by_role("button", name="Try again").click()
    wait_until(page, "() => !document.querySelector('.error-line')")
    made.wait_for_content()
    made.messages.clear()  # the browser itself notes requests without an answer


def test_the_page_tries_again_by_itself(visit: Start) -> None:
    made = visit()
    page = made.open("#/playground")
    page.locator(".play-prompt").wait_for()
    page.route(API, no_answer)
    made.go("#/data")
    page.locator(".error-line").wait_for()
    page.unroute(API, no_answer)
    page.locator(".document").first.wait_for()  # a second later, or with the next look at the folder
    wait_until(page, "() => !document.querySelector('.error-line')")
    made.messages.clear()


@pytest.mark.slow
def test_a_page_outlives_a_server_that_starts_again(visit: Start, studio_folder: Path, user_cache: Path) -> None:
    def start(*more: str) -> ServerProcess:
        return ServerProcess(user_cache, str(studio_folder), "--no-browser", *more, command="studio", more=WITH_TORCH)

    server = start()
    try:
        made = visit(address=server.url)
        page = made.open("#/data")
        page.locator(".document").first.wait_for()
        assert server.end() == 0
        made.go("#/data?from=20")
        page.locator(".error-line").wait_for()
        server = start("--port", str(server.port))
        page.get_by_role("heading", name="Document 21", exact=True).wait_for()
        wait_until(page, "() => !document.querySelector('.error-line')")
        made.messages.clear()
    finally:
        server.stop()


def test_a_key_that_is_not_given_is_asked_for_on_demand(visit: Start, locked_studio: ServerProcess) -> None:
    made = visit(address=locked_studio.url, timezone_id="UTC")  # a clock belongs to a context
    page = made.page
    page.clock.install()
    page.goto(f"{locked_studio.url}/#/data")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Enter key").wait_for()
    for _ in range(3):
        page.clock.run_for(6000)  # the page looks at the folder every 5 s
        assert page.get_by_role("dialog").count() == 0
    assert page.get_by_role("button", name="Enter key").count() == 1
    page.get_by_role("button", name="Enter key").click()
    page.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    page.locator(".document").first.wait_for()
    wait_until(page, "() => !document.querySelector('.error-line')")


@pytest.mark.usefixtures("loaded_model")
def test_errors_of_the_server_are_in_the_language_of_the_page(visit: Start) -> None:
    made = visit(locale="zh-CN")
    page = made.open("#/inside?model=storybook&text=" + "word+" * 300)
    page.locator(".error-line").wait_for()
    assert re.fullmatch(r"错误： 文本.*\d+ 个词元.*", page.locator(".error-line").inner_text())
    made.go("#/playground?model=nobody")
    page.get_by_role("button", name="续写").click()
    page.locator(".play-sample .error-line").wait_for()
    assert page.locator(".play-sample .error-line p").inner_text() == "错误： 没有模型 nobody。"
    page.get_by_role("button", name="English").click()
    page.get_by_text("There is no model nobody.").wait_for()
    made.messages.clear()


def test_a_run_with_one_update_is_seen_and_one_without_says_so(visit: Start, make_run: MakeRun) -> None:
    made = visit()
    page = made.open(f"#/runs?run={quote(make_run('single', 1), safe='')}")
    page.locator(".chart-large canvas").wait_for()
    wait_until(page, f"() => ({SEEN})() > 10")
    made.go(f"#/runs?run={quote(make_run('empty', 0), safe='')}")
    page.get_by_text("No values yet").wait_for()


def test_a_loss_that_is_no_number_is_shown_as_such(visit: Start, make_run: MakeRun, studio_folder: Path) -> None:
    id = make_run("lost", 8)
    with (studio_folder / id / "metrics.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 9, "loss": NaN, "learning_rate": 0.001}\n')
    page = visit().open(f"#/runs?run={quote(id, safe='')}")
    page.locator(".chart-large .chart-value-number", has_text="NaN").wait_for()
    assert page.locator(".summary dd").first.inner_text() == "NaN"
    assert "loss NaN" in page.locator(".choice-on").inner_text()


def test_samples_are_those_of_the_first_run_that_has_some(visit: Start, make_run: MakeRun, studio_folder: Path) -> None:
    id = make_run("silent", 8)
    (studio_folder / id / "samples.jsonl").unlink()
    both = f"#/runs?run={quote(id, safe='')}&run={quote(f'runs/{SECOND}', safe='')}"
    page = visit().open(both)
    page.locator(".sample").first.wait_for()
    assert page.get_by_role("radio", name=SECOND).is_checked()
    page.get_by_role("radio", name="silent").check(force=True)
    page.get_by_text("This run has no samples yet.").wait_for()
    page.get_by_role("radio", name=SECOND).check(force=True)
    page.locator(".sample").first.wait_for()


def test_a_run_that_is_not_there_is_named(visit: Start) -> None:
    page = visit().open(f"#/runs?run=runs/nothing&run={quote(f'runs/{FIRST}', safe='')}")
    page.get_by_text("There is no run runs/nothing in this folder.").wait_for()
    assert page.locator(".summary h2").inner_text() == FIRST
    page.get_by_role("button", name="Leave it out").click()
    wait_until(page, "() => !location.hash.includes('nothing') && !document.querySelector('.notice')")


@pytest.mark.usefixtures("loaded_model")
def test_the_chinese_page_has_signs_of_full_width(visit: Start) -> None:
    made = visit(locale="zh-CN")
    page = made.open()
    for view in ("#/runs", "#/data?q=owl", "#/data?part=tokenizer&text=red", "#/inside", "#/playground"):
        made.go(view)
        page.locator("main canvas, main .match, main tbody td, main .bars").first.wait_for()
        names = "[...document.querySelectorAll('main [aria-label]')].map(each => each.ariaLabel).join('\\n')"
        shown = page.locator("main").inner_text() + page.evaluate(names)
        assert not HALF_WIDTH.findall(shown), view


def test_a_field_says_what_it_cannot_use_and_does_nothing_else(visit: Start) -> None:
    page = visit().open("#/data?from=20")
    page.get_by_role("heading", name="Document 21", exact=True).wait_for()
    field = page.get_by_label("Go to document")
    for text in ("abc", "-3", "0", "1e3", "99999999999999999999"):
        field.fill(text)
        page.keyboard.press("Enter")
        page.get_by_text("Give a whole number from 1 to").wait_for()
        assert page.evaluate("location.hash") == "#/data?from=20"
        field.fill("21")
        page.keyboard.press("Enter")
        wait_until(page, "() => !document.querySelector('.field-problem')")
    field.fill("3")
    page.get_by_role("heading", name="Document 3", exact=True).wait_for()
    assert page.get_by_label("Search in documents").get_attribute("maxlength") == "200"
    page.goto(page.url.split("#")[0] + "#/playground?seed=5")
    seed = page.get_by_label("Seed", exact=True)
    seed.fill("-1")
    page.keyboard.press("Enter")
    page.get_by_text("Give a whole number from 0 to").wait_for()
    assert "seed=5" in page.evaluate("location.hash")
    seed.fill("6")
    page.keyboard.press("Enter")
    wait_until(page, "() => location.hash.includes('seed=6') && !document.querySelector('.field-problem')")


def test_a_refused_search_is_told_in_the_language_of_the_page(visit: Start) -> None:
    made = visit()
    page = made.open(f"#/data?q={'fox' * 100}")
    page.get_by_text("The text has more than 200 characters").wait_for()
    page.get_by_role("button", name="\u4e2d\u6587").click()
    page.get_by_text("\u6587\u672c\u8d85\u8fc7\u4e86 200 \u4e2a\u5b57\u7b26\u7684\u4e0a\u9650").wait_for()
    made.messages.clear()  # the browser itself notes an answer of 422 or 400


def test_a_printed_page_has_no_controls(visit: Start) -> None:
    page = visit().open(f"#/runs?run={quote(f'runs/{SECOND}', safe='')}")
    page.locator(".chart-large canvas").wait_for()
    assert page.locator(".side").is_visible()
    page.emulate_media(media="print")
    for name in (".side", ".tools", ".page-head"):
        assert not page.locator(name).first.is_visible()
    assert page.locator(".chart-large canvas").is_visible()
    page.emulate_media(media="screen")
