"""The studio's page has the same texts in both languages, pinned libraries, and nothing that its policy forbids."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "src/tinyllm/serving/studio/page"
VENDOR = PAGE / "vendor"
SOURCES = sorted(path for path in PAGE.rglob("*.js") if VENDOR not in path.parents)
PACKAGE = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))


def read_texts(language: str) -> dict[str, str]:
    """The texts of a language by key; the module is one object in the syntax of JSON."""
    module = (PAGE / "texts" / f"{language}.js").read_text(encoding="utf-8")
    texts: dict[str, str] = json.loads(module.removeprefix("export default "))
    return texts


ENGLISH, CHINESE = read_texts("en"), read_texts("zh")
CODE = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES if path.parent.name != "texts")


def test_languages_have_the_same_keys_in_the_same_order() -> None:
    assert list(ENGLISH) == list(CHINESE)
    assert len(ENGLISH) > 100


def test_languages_have_the_same_placeholders() -> None:
    for key, text in ENGLISH.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", CHINESE[key])), key


def test_chinese_texts_are_chinese() -> None:
    same = {key for key, text in ENGLISH.items() if CHINESE[key] == text}
    assert not same
    assert sum(bool(re.search(r"[\u4e00-\u9fff]", text)) for text in CHINESE.values()) > 0.95 * len(CHINESE)


def test_every_text_is_used_and_every_used_text_exists() -> None:
    named = set(re.findall(r"""["'`]([a-z_]+(?:\.[a-z_]+)+)["'`]""", CODE)) | set(re.findall(r'\bt\("(\w+)"', CODE))
    prefixes = tuple(re.findall(r"`([a-z_]+\.)\$\{", CODE))
    assert {key for key in ENGLISH if key not in named and not key.startswith(prefixes or ("-",))} == set()
    assert set(re.findall(r'\bt\("([^"]+)"', CODE)) <= ENGLISH.keys()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PAGE).as_posix())
def test_sources_make_no_markup_of_data_and_name_no_other_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySetInnerHTML|\beval\(|new Function"
    assert not re.search(forbidden, text)
    assert not re.search(r"https?://", text)
    assert not re.search(r"""\bstyle=["'`]""", text)


def test_index_has_no_inline_script_and_no_inline_style() -> None:
    index = (PAGE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>(.*?)</script>", index, re.DOTALL) == [""]
    assert not re.search(r"<style|style=|\son\w+=|https?:", index)


def test_modules_import_files_that_exist() -> None:
    for path in [*SOURCES, *VENDOR.rglob("*.js")]:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"""(?m)(?:^|;)(?:import|export)\b[^;"']*?from\s*["']([^"']+)["']""", text):
            assert target.startswith("."), f"{path.name} imports {target} by its bare name"
            assert (path.parent / target).is_file(), f"{path.name} imports {target}, which is not there"


def test_libraries_have_the_pinned_versions_and_their_licences() -> None:
    versions = json.loads((VENDOR / "versions.json").read_text(encoding="utf-8"))
    assert versions == PACKAGE["dependencies"]
    for name in versions:
        assert (
            "ermission is hereby granted" in (licence := (VENDOR / name / "LICENSE").read_text()) or "Apache" in licence
        )


def test_lock_pins_the_same_versions_with_hashes_and_names_no_registry() -> None:
    text = (ROOT / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    assert packages.pop("")["dependencies"] == PACKAGE["dependencies"]
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert "resolved" not in text
    assert "://" not in re.sub(r'"(url|funding)": "[^"]*"', "", text)
