"""Runs the sessions of docstrings and documents in a folder with a small corpus, its tokenizer and its shards."""

import doctest
import types
from collections.abc import Iterator
from pathlib import Path

import tinyllm
from tinyllm.corpus.storybook import write_stories

NUM_STORIES = 200


def make_material(folder: Path) -> None:
    """Writes stories.txt, tokenizer/ and shards/ into `folder`."""
    stories = "\n<|endoftext|>\n".join(write_stories(NUM_STORIES, seed=1))
    (folder / "stories.txt").write_text(stories, encoding="utf-8")
    tinyllm.train_tokenizer(folder / "stories.txt", folder / "tokenizer", vocab_size=512)
    tinyllm.prepare(
        folder / "stories.txt", folder / "tokenizer", folder / "shards", validation_fraction=0.1, num_workers=1
    )


def sessions_of(module: types.ModuleType) -> Iterator[doctest.DocTest]:
    """Every session in the docstrings of `module`, with `tinyllm` imported."""
    found = doctest.DocTestFinder(exclude_empty=True).find(module, globs={**vars(module), "tinyllm": tinyllm})
    return (each for each in found if each.examples)


def session_of_document(path: Path) -> doctest.DocTest:
    """All sessions of a document as one: a name of an earlier session is known in a later one."""
    return doctest.DocTestParser().get_doctest(path.read_text(encoding="utf-8"), {}, path.name, str(path), 0)


def run_session(session: doctest.DocTest) -> str:
    """The report on examples that print something else than the text says; empty if there is none."""
    lines: list[str] = []
    doctest.DocTestRunner(verbose=False).run(session, out=lines.append)
    return "".join(lines)
