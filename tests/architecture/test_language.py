"""Docstrings, comments, names and documents keep the rules of CONTRIBUTING.md that a pattern can check."""

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
UNFINISHED: tuple[str, ...] = ()
"""Paths whose texts are not rewritten yet."""


def sources(*patterns: str) -> list[Path]:
    """The files of all folders with code that match a pattern, without unfinished ones."""
    folders = [ROOT / folder for folder in ("src", "tests", "benchmarks", "tools")]
    found = sorted(path for folder in folders for pattern in patterns for path in folder.rglob(pattern))
    return [path for path in found if not any(path.is_relative_to(ROOT / unfinished) for unfinished in UNFINISHED)]


PATHS = sources("*.py")
MAX_WORDS = 25
OPENINGS = re.compile(r"(Of|Those|What|Where|Who)\b")
PHRASES = re.compile(
    r"\b(at last|so far|so many|the run before|the way back|what is kept|today|now|remember\w*)\b", re.IGNORECASE
)
NAMES = re.compile(r"of_\w+|turn|remember(_\w+)?|wanted(_\w+)?|test_(of|those|what|where|who)_\w+")
DIRECTIVE = re.compile(r"#\s*(type: ignore(\[[\w, -]+\])?|noqa(: [A-Z]+\d+(, [A-Z]+\d+)*)?|pragma: [\w ]+|!.*)")


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each string that stands alone: of a module, class or function, or below a name."""
    for node in ast.walk(tree):
        for statement in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                if isinstance(text, str):
                    yield statement.lineno, inspect.cleandoc(text)


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment; comments on consecutive lines of their own are one text."""
    start, end, texts = 0, -1, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = DIRECTIVE.sub("", token.string).strip("# ")
        if token.type != tokenize.COMMENT or not text:
            continue
        line, stands_alone = token.start[0], token.line.lstrip().startswith("#")
        if not (stands_alone and line == end + 1):
            if texts:
                yield start, " ".join(texts)
            start, texts = line, []
        texts.append(text)
        end = line if stands_alone else -1
    if texts:
        yield start, " ".join(texts)


def prose(path: Path) -> list[tuple[str, str]]:
    """Place and text of all docstrings and comments of a module."""
    source = path.read_text(encoding="utf-8")
    found = [*docstrings(ast.parse(source)), *comments(source)]
    return [(f"{path.relative_to(ROOT)}:{line}", text) for line, text in found]


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, with each code span as one word; sessions, indented lines and columns are left out."""
    text = re.sub(r"``.*?``|`[^`]*`", "code", text, flags=re.DOTALL)
    lines = ["" if line.startswith(" ") or "  " in line else line for line in text.splitlines()]
    for paragraph in re.split(r"\n\s*\n|\n[-*] |\n\d+\. ", "\n".join(lines)):
        if paragraph.startswith(">>> "):
            continue  # a session is code up to the next empty line
        yield from re.split(r"(?<=[.!?])[\"')*]*\s+", " ".join(paragraph.removeprefix("- ").split()))


def marked_comments(path: Path, mark: str) -> Iterator[tuple[str, str]]:
    """Place and text of each comment of a C++ file, a Makefile or a settings file, in which `mark` begins a comment."""
    block: list[str] = []
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], start=1):
        stands_alone = line.lstrip().startswith(mark)
        if block and not stands_alone:
            yield f"{path.relative_to(ROOT)}:{number - 1}", " ".join(block)
            block = []
        found = re.search(rf"(^|\s){mark}+\s+(\S.*)", line)
        if found and stands_alone:
            block.append(found[2])
        elif found:
            yield f"{path.relative_to(ROOT)}:{number}", found[2]


def document(path: Path) -> tuple[str, str]:
    """Name and prose of a Markdown file: no headings, tables, code blocks or addresses of links."""
    lines = re.sub(r"\]\([^)]*\)", "]", path.read_text(encoding="utf-8")).splitlines()
    kept = [
        "" if line.startswith(("|", "#", "    ")) else re.sub(r"^\s*([-*]|\d+\.) ", "\n", line).strip(" ")
        for line in lines
    ]
    return str(path.relative_to(ROOT)), "\n".join(kept)


DOCUMENTS = [
    path
    for folder in (".", "docs", "benchmarks/log", "tests/fixtures", "tests/fixtures/stories260K", ".github")
    for path in sorted((ROOT / folder).glob("*.md"))
    if not path.name.endswith(".zh.md")  # Chinese, as docs/zh/ is: the rules below are about English
]
SETTINGS = [ROOT / name for name in ("Makefile", "pyproject.toml", ".github/workflows/ci.yml")]
TEXTS = [
    *(found for path in PATHS for found in prose(path)),
    *(found for path in sources("*.cpp", "*.h") for found in marked_comments(path, "//")),
    *(found for path in SETTINGS for found in marked_comments(path, "#")),
    *map(document, DOCUMENTS),
]


def test_texts_are_found() -> None:
    """So that the tests below do not pass by finding nothing."""
    assert len(TEXTS) > 1500
    assert [text for place, text in TEXTS if place.startswith("tests/architecture/test_language.py:1")]


def test_no_text_opens_with_a_pronoun() -> None:
    breaches = [
        f"{place}: {sentence}" for place, text in TEXTS for sentence in sentences(text) if OPENINGS.match(sentence)
    ]
    assert not breaches, "\n".join(breaches)


def test_no_text_tells_a_history() -> None:
    breaches = [
        f"{place}: {found[0]}" for place, text in TEXTS for found in PHRASES.finditer(" ".join(sentences(text)))
    ]
    assert not breaches, "\n".join(breaches)


def test_sentences_are_short() -> None:
    breaches = [
        f"{place}: {sentence}"
        for place, text in TEXTS
        for sentence in sentences(text)
        if len(re.findall(r"\S*\w\S*", sentence)) > MAX_WORDS and not sentence.startswith("Shapes:")
    ]
    assert not breaches, "\n".join(breaches)


def test_names_are_words_of_the_field() -> None:
    breaches = []
    for path in PATHS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = next(
                (
                    getattr(node, field)
                    for field in ("name", "id", "arg")
                    if isinstance(getattr(node, field, None), str)
                ),
                "",
            )
            if NAMES.fullmatch(name) and isinstance(node, ast.FunctionDef | ast.ClassDef | ast.arg | ast.Name):
                breaches.append(f"{path.relative_to(ROOT)}: {name}")
    assert not breaches, "\n".join(sorted(set(breaches)))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""Of a value."""', ["Of a value."]),
        ("x = 1\n# One line\n# and the next.\n", ["One line and the next."]),
        ("x = 1  # noqa: F401\n", []),
        ("x = 1  # type: ignore[misc] because of a stub\n", ["because of a stub"]),
    ],
)
def test_docstrings_and_comments_are_texts(source: str, expected: list[str]) -> None:
    assert [text for _, text in (*docstrings(ast.parse(source)), *comments(source))] == expected


def test_a_text_is_split_into_sentences() -> None:
    text = "One `a b c` here. llama.cpp too (yes). Last:\n\n    formula = x + y\n\n- a point\n- another point"
    assert list(sentences(text)) == ["One code here.", "llama.cpp too (yes).", "Last:", "a point", "another point"]
