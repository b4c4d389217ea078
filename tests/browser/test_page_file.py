"""A page opened from disk in Chromium writes our text, sends no request, runs no foreign script, and can be used."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from random_models import random_model
from reference_data import STORIES_260K
from studio_visits import violations
from tinyllm.config import ModelConfig
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.write import export_model
from tinyllm.loading import load_with_torch, read_model
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import Piece, PieceType
from tinyllm.tokenizer.proto_writer import write_model_proto

pytestmark = pytest.mark.browser
HOSTILE = [
    "</script><script>document.title = 'hit'</script>",
    "<img src=x onerror=\"document.title = 'hit'\">",
    "<svg/onload=\"document.title = 'hit'\">",
    "<!--<script>",
    "</title></style></textarea>",
    "javascript:document.title='hit'",
    "{{files}}${document.title='hit'}",
    "\u202e\u2028\u2029&lt;b&gt;",
]
Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a file from disk once its model is ready; afterwards no request and no error may have happened."""
    contexts: list[Any] = []
    events: list[str] = []

    def open_file(path: Path, width: int = 1280, height: int = 900, **options: Any) -> Any:
        options = {"locale": "en", "offline": True} | options
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: events.append(request.url))
        page.on("console", lambda message: events.append(message.text))
        page.on("pageerror", lambda error: events.append(str(error)))
        page.on("dialog", lambda dialog: events.append(dialog.message))
        page.goto(path.as_uri())
        page.locator("#write:enabled").wait_for()
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert [event for event in events if not event.startswith(("file:", "blob:null/", "data:,"))] == []
    assert len([event for event in events if event.startswith("file:")]) == len(contexts)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "story.html"
    model = read_model(STORIES_260K / "stories260K.bin")
    return export_model(model, "html", path, title="Stories", prompt="Once upon a time").path


def set_slider(page: Any, name: str, value: float) -> None:
    page.locator(f"#{name}").fill(str(value))


def write(page: Any, **sliders: float) -> None:
    """Sets sliders, writes a text, and waits for its end."""
    if page.locator("#settings:not([open])").count():
        page.locator("summary").click()
    for name, value in sliders.items():
        set_slider(page, name, value)
    page.locator("#write").click()
    page.locator(".token").first.wait_for(state="attached")
    page.locator("#stop:disabled").wait_for()


def test_the_greedy_text_is_ours(story: Path, open_page: Open) -> None:
    page = open_page(story)
    write(page, temperature=0, maxNewTokens=100)
    expected = load_with_torch(story, device="cpu").generate("Once upon a time", max_new_tokens=100, temperature=0)[0]
    assert page.locator("#text").text_content() == "Once upon a time" + expected.text
    assert page.locator(".token").count() == 100
    assert re.match(r"100 tokens · [\d,]+ tokens/s · seed \d+$", page.locator("#status").text_content())
    assert page.title() == "Stories"


def test_a_seed_repeats_a_text_and_go_on_lengthens_it(story: Path, open_page: Open) -> None:
    page = open_page(story)
    page.locator("#seed").fill("7")
    write(page, maxNewTokens=30)
    text = page.locator("#text").text_content()
    write(page)
    assert page.locator("#text").text_content() == text
    page.locator("#more").click()
    page.locator('[data-index="30"]').wait_for()
    page.locator("#stop:disabled").wait_for()
    assert page.locator("#text").text_content().startswith(text)
    assert page.locator(".token").count() > 30
    page.locator("#seed").fill("8")
    write(page)
    assert page.locator("#text").text_content() != text


@pytest.mark.parametrize("seed", ["abc", "-1", "1e3", "9999999999999999"])
def test_a_seed_that_is_no_number_is_told_and_nothing_is_written(seed: str, story: Path, open_page: Open) -> None:
    page = open_page(story)
    page.locator("#seed").fill(seed)
    page.locator("#write:enabled").click()
    assert "whole number" in page.locator("#seed-problem").inner_text()
    assert page.locator(".token").count() == 0
    page.locator("#seed").fill("12")
    write(page, maxNewTokens=10)
    assert page.locator("#seed-problem").is_hidden()


ESCAPE_AT_FIRST_TOKEN = """() => {
    new MutationObserver((_, observer) => {
        if (document.querySelector(".token") === null) return;
        observer.disconnect();
        document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    }).observe(document.body, { childList: true, subtree: true });
}"""
"""Presses Escape from within the page: on a busy machine a key of the test comes when the text has ended."""


def test_stop_ends_a_text_at_once(tiny_tokenizer: Tokenizer, open_page: Open, tmp_path: Path) -> None:
    """A model that never ends a text by itself."""
    config = ModelConfig(vocab_size=320, hidden_size=256, num_layers=8, num_heads=4, context_length=512)
    endless = random_model(config, tiny_tokenizer.with_rules(end_ids=[]), 0.05)
    page = open_page(export_model(endless, "html", tmp_path / "endless.html").path)
    set_slider(page, "maxNewTokens", 500)
    page.evaluate(ESCAPE_AT_FIRST_TOKEN)
    page.locator("#write").click()
    page.locator("#stop:disabled").wait_for()
    page.locator(".token").first.wait_for(state="attached")
    count = page.locator(".token").count()
    assert 0 < count < 500
    assert "stopped" in page.locator("#status").text_content()
    page.wait_for_timeout(200)
    assert page.locator(".token").count() == count


def test_a_rival_is_chosen_with_the_mouse(story: Path, open_page: Open) -> None:
    page = open_page(story)
    write(page, temperature=0, maxNewTokens=40)
    before = page.locator(".token").all_text_contents()
    token = page.locator('[data-index="4"]')
    token.hover()
    page.locator("#rivals").wait_for()
    assert page.locator(".rival").count() == 10
    assert page.locator(".rival.chosen").count() == 1
    token.click()
    page.locator(".rival").nth(1).click()
    page.locator('[data-index="43"]').wait_for(state="attached")
    page.locator("#stop:disabled").wait_for()
    after = page.locator(".token").all_text_contents()
    assert (after[:4], len(after)) == (before[:4], 4 + 40)
    assert after[4] != before[4]


def test_the_keyboard_alone_writes_and_branches(story: Path, open_page: Open) -> None:
    page = open_page(story)
    set_slider(page, "temperature", 0)
    set_slider(page, "maxNewTokens", 20)
    page.locator("#prompt").focus()
    page.keyboard.press("End")
    page.keyboard.type(", a cat")
    page.keyboard.press("Control+Enter")
    page.locator('[data-index="19"]').wait_for()
    page.locator("#stop:disabled").wait_for()
    for _ in range(4):  # to Write, past Stop, which is off, to Go on, and to the first token
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('token')"):
            break
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.index") == "3"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.classList.contains('chosen')")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.index") == "3"
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    chosen = page.evaluate("document.activeElement.querySelector('.piece').textContent")
    page.keyboard.press("Enter")
    page.locator('[data-index="22"]').wait_for(state="attached")
    assert page.locator('[data-index="3"]').text_content() == chosen.removeprefix("·")


@pytest.mark.parametrize(("locale", "scheme"), [("zh-CN", "dark"), pytest.param("en", "light", marks=pytest.mark.slow)])
def test_a_phone_needs_no_sideways_scroll(scheme: str, locale: str, story: Path, open_page: Open) -> None:
    page = open_page(story, 375, 700, color_scheme=scheme, locale=locale, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.locator("#write").text_content() == {"en": "Write", "zh-CN": "续写"}[locale]
    write(page, maxNewTokens=60)
    page.locator(".token").nth(5).tap()
    box = page.locator("#rivals").bounding_box()
    assert (box["x"], box["width"]) == (0, 375)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.locator(".close").tap()
    page.locator("#rivals").wait_for(state="hidden")


def test_axe_finds_no_violation_in_the_file(story: Path, open_page: Open) -> None:
    """axe-core is a script that the page's policy forbids, so the browser leaves the policy out."""
    page = open_page(story, color_scheme="light", bypass_csp=True)
    write(page, maxNewTokens=40)
    for rules in ((), ("color-contrast",)):  # the themes differ in colours alone
        page.locator('[data-index="6"]').click()
        page.locator("#rivals").wait_for()
        assert violations(page, *rules) == []
        page.locator("#theme").click()
    page.locator("#language").click()
    assert violations(page) == []


def test_a_character_of_several_tokens_is_seen_in_the_file(
    tiny_tokenizer: Tokenizer, open_page: Open, tmp_path: Path
) -> None:
    """Rivals are taken until three bytes have made a character."""
    config = ModelConfig(vocab_size=320, hidden_size=16, num_layers=1, num_heads=2, context_length=64)
    model = random_model(config, tiny_tokenizer.with_rules(end_ids=[]), 0.3)
    pieces = [piece.text for piece in tiny_tokenizer.pieces]
    page = open_page(export_model(model, "html", tmp_path / "bytes.html").path)
    write(page, temperature=0, maxNewTokens=10)
    for place, id in enumerate(pieces.index(f"<0x{byte:02X}>") for byte in "从".encode()):
        page.evaluate("([place, id]) => page.branch(place, id)", [place, id])
        page.locator(f'[data-index="{place + 9}"]').wait_for(state="attached")
        page.locator("#stop:disabled").wait_for()
    character = page.locator(".character").first
    assert character.locator(".character-text").text_content() == "从"
    assert re.fullmatch(r"3 tokens, together (< )?[\d.]+%", character.get_attribute("title"))
    assert [part.get_attribute("aria-label").split(",")[0] for part in character.locator(".part").all()] == [
        f"{byte} (从 {place}/3)" for place, byte in enumerate(("E4", "BB", "8E"), start=1)
    ]
    character.locator(".part").nth(1).hover()
    page.locator("#rivals-title", has_text="BB (从 2/3)").wait_for()


def test_theme_language_and_shading_change(story: Path, open_page: Open) -> None:
    page = open_page(story)
    write(page, maxNewTokens=20)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    page.locator("#language").click()
    assert page.locator("html").get_attribute("lang") == "zh"
    assert "个词元" in page.locator("#status").text_content()
    shade = "getComputedStyle(document.querySelector('.token')).backgroundColor"
    assert page.evaluate(shade) != "rgba(0, 0, 0, 0)"
    page.locator("#shading").uncheck()
    assert page.evaluate(shade) == "rgba(0, 0, 0, 0)"


def hostile_model() -> ForeignModel:
    """A model whose pieces are markup, at random. No token ends its texts."""
    pieces = [
        Piece("<unk>", 0, PieceType.UNKNOWN),
        Piece("<s>", 0, PieceType.CONTROL),
        Piece("</s>", 0, PieceType.CONTROL),
    ]
    pieces += [Piece(f"<0x{byte:02X}>", 0, PieceType.BYTE) for byte in range(256)]
    pieces += [Piece(text, -float(place), PieceType.NORMAL) for place, text in enumerate(HOSTILE)]
    tokenizer = Tokenizer.from_bytes(write_model_proto(pieces, unk_id=0, bos_id=1, eos_id=2), "hostile.model")
    tokenizer = tokenizer.with_rules(end_ids=[])
    config = ModelConfig(vocab_size=len(pieces), hidden_size=16, num_layers=1, num_heads=2, context_length=64)
    model = random_model(config, tokenizer, 0.3)
    model.tensors["model.embed_tokens.weight"][-len(HOSTILE) :] *= 4  # likelier than bytes
    return model


@pytest.mark.parametrize(
    "text", [pytest.param(text, marks=[pytest.mark.slow] * (text not in HOSTILE[:2])) for text in HOSTILE]
)
def test_hostile_texts_stay_text(text: str, open_page: Open, tmp_path: Path) -> None:
    """As heading, prompt, and pieces of the vocabulary; the policy and the requests are checked at the end."""
    path = export_model(hostile_model(), "html", tmp_path / "x.html", title=f"x {text}", prompt=text).path
    page = open_page(path)
    page.locator("#seed").fill("1")  # another seed could write bytes alone, which make no visible text
    write(page, maxNewTokens=60)
    assert page.locator("h1").text_content() == f"x {text}"
    written = page.locator(".token").all_text_contents()
    assert set(HOSTILE) & set(written)
    page.locator(".token").nth(next(place for place, piece in enumerate(written) if piece in HOSTILE)).click()
    page.locator("#rivals").wait_for()
    assert page.title() != "hit"
    assert page.locator("#text img, #text svg, #rivals img, h1 *").count() == 0


def test_a_prompt_that_is_too_long_gives_a_line(story: Path, open_page: Open) -> None:
    page = open_page(story)
    page.locator("#prompt").fill("a very long text " * 600)
    page.locator("#write").click()
    page.locator("#status.error").wait_for()
    assert "longer than the model can read" in page.locator("#status").text_content()
    page.locator("#prompt").fill("The end")
    write(page, maxNewTokens=10)
    assert page.locator(".token").count() > 0
