"""The exported page and the studio are one design: colours, fonts, words, shades and defaults."""

import re

import pytest

from tinyllm.config import SamplingConfig
from tinyllm.exchange.html.page import FOLDER

STUDIO = FOLDER.parents[1] / "serving/studio/page"
PROPERTY = re.compile(r"--([\w-]+):\s*([^;{}]+);")
SAME_WORDS = {
    "prompt": "prompt",
    "write": "write",
    "stop": "stop",
    "more": "go_on",
    "keys": "keys",
    "expected": "likely",
    "surprising": "surprising",
    "settings": "settings",
    "seed": "seed",
    "temperature": "temperature",
    "topK": "top_k",
    "topP": "top_p",
    "minP": "min_p",
    "repetitionPenalty": "repetition_penalty",
    "maxNewTokens": "max_tokens",
    "all": "all",
    "off": "off",
    "choose": "take_hint",
    "reasonEnd": "ended",
    "reasonStop": "stopped",
}
"""Text of the exported page -> text of the studio's playground that says the same."""


def properties(css: str) -> dict[str, str]:
    """The custom properties that a style sheet, or a part of it, gives to the whole page."""
    return {name: " ".join(value.split()) for name, value in PROPERTY.findall(css)}


def chosen(value: str, theme: str) -> str:
    """A value of the studio in one theme: `light-dark(a, b)` is one of two."""
    return re.sub(
        r"light-dark\(((?:[^(),]|\([^)]*\))*), ((?:[^(),]|\([^)]*\))*)\)",
        lambda found: found[1 if theme == "light" else 2],
        value,
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_fonts_and_corners_are_those_of_the_studio(theme: str) -> None:
    studio = properties("".join((STUDIO / name).read_text("utf-8") for name in ("style.css", "views/playground.css")))
    light, dark = (FOLDER / "style.css").read_text("utf-8").split('[data-theme="dark"] {')
    page = properties(light) | (properties(dark.split("\n}")[0]) if theme == "dark" else {})
    shared = page.keys() & studio.keys()
    assert len(shared) >= 18
    assert {name: page[name] for name in shared} == {name: chosen(studio[name], theme) for name in shared}
    assert page.keys() - studio.keys() == {"heat-rgb", "strength"}
    red, green, blue = map(int, page["heat-rgb"].split())
    assert f"#{red:02x}{green:02x}{blue:02x}" == page["heat-color"]
    assert f"calc(var(--heat, 0%) * {page['strength']})" in (STUDIO / "views/playground.css").read_text("utf-8")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_words_are_those_of_the_studio(language: str) -> None:
    studio = dict(re.findall(r'"play\.(\w+)": "([^"]*)"', (STUDIO / f"texts/{language}.js").read_text("utf-8")))
    texts = (FOLDER / "texts.js").read_text("utf-8")
    part = texts[texts.index(f"  {language}: {{") :].split("\n  },")[0]
    page = dict(re.findall(r'(\w+): "([^"]*)"', part))
    assert {name: page[name] for name in SAME_WORDS} == {name: studio[other] for name, other in SAME_WORDS.items()}
    assert not re.search(r"\bwords?\b", " ".join(page.values()))


def test_defaults_are_those_of_the_library_and_the_studio() -> None:
    sliders = (FOLDER / "controls.js").read_text("utf-8")
    page = {name: float(value) for name, value in re.findall(r'name: "(\w+)".*?value: ([\d.]+)', sliders)}
    ours = SamplingConfig()
    assert page["temperature"] == ours.temperature
    assert (page["topK"], page["topP"], page["minP"]) == (ours.top_k, ours.top_p, ours.min_p)
    assert page["repetitionPenalty"] == ours.repetition_penalty
    (line,) = re.findall(r"DEFAULTS = \{(.*)\}", (STUDIO / "parts/play_link.js").read_text("utf-8"))
    studio = {name: float(value) for name, value in re.findall(r"(\w+): ([\d.]+)", line)}
    assert page["maxNewTokens"] == studio["max_tokens"]
    assert (page["temperature"], page["topP"]) == (studio["temperature"], studio["top_p"])


def test_shades_are_as_strong_as_in_the_studio() -> None:
    (probability,) = re.findall(r"LEAST_PROBABILITY = ([\d.]+);", (STUDIO / "parts/heat.js").read_text("utf-8"))
    (most,) = re.findall(r"SURPRISING_BITS = Math.log2\((\d+)\)", (FOLDER / "text_view.js").read_text("utf-8"))
    assert 1 / float(probability) == float(most)
