"""A translation has the commands of its original, line by line, and links to documents that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAIRS = {"README.md": "README.zh.md", "docs/quickstart.md": "docs/zh/quickstart.md"}


def code_lines(name: str) -> list[str]:
    """The lines of the code blocks of a document: commands, Python and output."""
    return re.findall(r"^ {4}.*$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)


def linked_files(name: str) -> set[Path]:
    """The documents that a document links to."""
    path = ROOT / name
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    return {(path.parent / target).resolve() for target in targets}


@pytest.mark.parametrize("original", PAIRS)
def test_translation_has_the_same_code(original: str) -> None:
    assert len(code_lines(original)) > 10
    assert code_lines(PAIRS[original]) == code_lines(original)


@pytest.mark.parametrize("original", PAIRS)
def test_translation_has_the_same_inline_commands(original: str) -> None:
    """In any order: a sentence of another language may name them in another one."""
    spans = [
        sorted(re.findall(r"`([^`]+)`", (ROOT / name).read_text(encoding="utf-8").replace("\n", " ")))
        for name in (original, PAIRS[original])
    ]
    assert spans[0] == spans[1]


@pytest.mark.parametrize("original", PAIRS)
def test_original_and_translation_link_to_each_other(original: str) -> None:
    translation = PAIRS[original]
    assert ROOT / translation in linked_files(original)
    assert ROOT / original in linked_files(translation)


def test_translation_links_to_translations() -> None:
    """README.zh.md leads to the Chinese quick start; other documents are linked in English."""
    translated = {(ROOT / original): ROOT / translation for original, translation in PAIRS.items()}
    swapped = {*translated.items(), *((new, old) for old, new in translated.items())}
    expected = {dict(swapped).get(path, path) for path in linked_files("README.md")}
    assert linked_files("README.zh.md") == expected


@pytest.mark.parametrize("name", PAIRS.values())
def test_prose_of_a_translation_is_chinese(name: str) -> None:
    """So that a translation is not a copy."""
    assert len(re.findall(r"[\u4e00-\u9fff]", (ROOT / name).read_text(encoding="utf-8"))) > 400
