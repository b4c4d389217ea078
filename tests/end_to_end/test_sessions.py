"""Sessions in docstrings of the public modules and in docs/python.md print what they say."""

import doctest
import importlib
import shutil
from pathlib import Path

import pytest

import tinyllm
from public_sessions import make_material, run_session, session_of_document, sessions_of

ROOT = Path(__file__).parent.parent.parent
MODULES = ("api", "loading", "generation.generator", "errors", "corpus.formats")
SESSIONS = [session for name in MODULES for session in sessions_of(importlib.import_module(f"tinyllm.{name}"))]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that sessions name."""
    folder = tmp_path_factory.mktemp("material")
    make_material(folder)
    return folder


@pytest.fixture
def in_copy(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes to a copy of the material, which a session may add files to."""
    shutil.copytree(material, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
@pytest.mark.usefixtures("in_copy")
def test_docstring_prints_what_it_says(session: doctest.DocTest) -> None:
    assert run_session(session) == ""


@pytest.mark.usefixtures("in_copy")
def test_python_page_prints_what_it_says() -> None:
    session = session_of_document(ROOT / "docs" / "python.md")
    assert len(session.examples) > 15
    assert run_session(session) == ""


def test_every_public_function_has_a_session() -> None:
    names = {session.name for session in SESSIONS}
    functions = ("evaluate", "fit", "generate", "merge_parts", "prepare", "prepare_part", "train", "train_tokenizer")
    methods = ("generate", "stream", "score", "logits", "hidden_states", "embed", "trace")
    expected = {
        "tinyllm.loading.load",
        *(f"tinyllm.api.{name}" for name in functions),
        *(f"tinyllm.generation.generator.Generator.{name}" for name in methods),
    }
    assert expected <= names
    assert {name for name in tinyllm.__all__ if name[0].islower()} == {*functions, "load"}
    for session in SESSIONS:
        assert not any(doctest.SKIP in example.options for example in session.examples), session.name


def test_a_wrong_session_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("    >>> 1 + 1\n    3\n", encoding="utf-8")
    assert "Expected:\n    3\nGot:\n    2\n" in run_session(session_of_document(tmp_path / "page.md"))
