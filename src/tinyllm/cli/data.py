"""`tinyllm data download` and `tinyllm data storybook`."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from cyclopts import Parameter

from tinyllm import storage
from tinyllm.cli.console import note
from tinyllm.cli.paths import quoted
from tinyllm.cli.progress import DownloadDisplay, progress_bar
from tinyllm.errors import UsageError

DATA_FOLDER = Path("data")
DEFAULT_STORYBOOK = DATA_FOLDER / "storybook.txt"
STANDARD_OUTPUT = Path("-")


def download(
    name: Annotated[str | None, Parameter(help="Corpus to download: tinystories (default without --url).")] = None,
    /,
    *,
    source: Annotated[
        Literal["modelscope", "huggingface"], Parameter(name="--from", help="Source of the corpus.")
    ] = "modelscope",
    url: Annotated[str | None, Parameter(help="Download this address instead.")] = None,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="File to write; default: data/ and the file's name.")
    ] = None,
    sha256: Annotated[str | None, Parameter(help="Expected checksum of the file, 64 hexadecimal digits.")] = None,
) -> None:
    """Download a corpus, with resume and checksum.

    A broken download continues where it stopped, also in the next call. The file appears only when it is complete and
    its checksum is right. tinyllm reads archives directly, without unpacking.

    For example:

      tinyllm data download tinystories --from huggingface
    """
    from tinyllm.corpus import catalogue
    from tinyllm.corpus.formats import format_of

    if url is not None:
        if name is not None:
            raise UsageError(f"give either the name of a corpus ({name}) or --url, not both")
        target = output or DATA_FOLDER / _file_name(url)
        num_bytes = None
    else:
        corpus = catalogue.KNOWN_CORPORA.get(name or "tinystories")
        if corpus is None:
            known = ", ".join(catalogue.KNOWN_CORPORA)
            raise UsageError(f"{name!r} is not a known corpus ({known}); download others with --url ADDRESS")
        url, num_bytes, sha256 = corpus.urls[source], corpus.num_bytes, sha256 or corpus.sha256
        target = output or DATA_FOLDER / corpus.file_name
    if target.exists():
        note(f"{target} exists already; checking it")
    fetch_corpus(url, target, sha256, num_bytes)
    if format_of(target.name):
        note(f"Read it with: tinyllm prepare {quoted(target)}")
    print(target)


def fetch_corpus(url: str, target: Path, sha256: str | None, num_bytes: int | None) -> None:
    """Downloads `url` to `target` with a progress bar. Raises DownloadError without a complete, checked file."""
    from tinyllm.corpus.download import download as fetch

    with DownloadDisplay() as display:
        display.begin(target.name)
        fetch(url, target, sha256=sha256, expected_bytes=num_bytes, reporter=display)


def storybook(
    *,
    stories: Annotated[int, Parameter(help="Number of stories, all different.")] = 20_000,
    seed: Annotated[int, Parameter(help="The same seed writes the same stories on every machine.")] = 7,
    output: Annotated[
        Path,
        Parameter(
            name=["--output", "-o"],
            allow_leading_hyphen=True,
            help="File to write, .txt or .jsonl; - writes .txt to standard output.",
        ),
    ] = DEFAULT_STORYBOOK,
    overwrite: Annotated[
        bool, Parameter(negative="", show_default=False, help="Replace an existing text file.")
    ] = False,
) -> None:
    """Write children's stories from a seeded grammar.

    In .txt, a line <|endoftext|> follows each story. In .jsonl, each story is an object with the key story.

    For example:

      tinyllm data storybook --stories 1000 -o stories.jsonl
    """
    from tinyllm.corpus.storybook import write_stories

    to_stdout = output == STANDARD_OUTPUT
    if not to_stdout and output.suffix not in (".txt", ".jsonl"):
        raise UsageError(f"{output} ends in neither .txt nor .jsonl; the suffix chooses the format")
    as_entry = _as_json_line if output.suffix == ".jsonl" else _as_text
    try:
        entries = (as_entry(story) for story in write_stories(stories, seed))
    except ValueError as error:
        raise UsageError(f"--stories {stories}: {error}") from None
    if to_stdout:
        sys.stdout.writelines(entries)
        return
    storage.check_new_file(output, "a text file", storage.is_text, overwrite=overwrite)
    with storage.commit_file(output) as file:
        file.writelines(entry.encode() for entry in _with_bar(entries, stories, output.name))
    note(f"{stories} stories, {output.stat().st_size / 1e6:.1f} MB")
    print(output)


def _as_text(story: str) -> str:
    from tinyllm.corpus.text import END_OF_TEXT

    return f"{story}\n{END_OF_TEXT}\n"


def _as_json_line(story: str) -> str:
    return json.dumps({"story": story}, ensure_ascii=False) + "\n"


def _file_name(url: str) -> str:
    try:
        name = unquote(urlsplit(url).path).rpartition("/")[2]
    except ValueError:
        name = ""
    if name in ("", ".", "..") or not name.isprintable():
        raise UsageError(f"{url!r} does not end in a file name; give one with --output")
    return name


def _with_bar(entries: Iterable[str], total: int, name: str) -> Iterator[str]:
    with progress_bar() as bar:
        yield from bar.track(entries, total=total, description=name)
