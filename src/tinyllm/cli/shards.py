"""`tinyllm prepare` and `tinyllm data inspect`."""

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Self

from cyclopts import Parameter
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from tinyllm import storage
from tinyllm.addresses import shown
from tinyllm.cli.cluster import NO_CLUSTER, ClusterFlags, prepare_by_executor
from tinyllm.cli.console import TEXT_OR_DASH, note, show
from tinyllm.cli.paths import quoted
from tinyllm.cli.progress import Display, stderr
from tinyllm.cli.texts import TextKey, read_text_key
from tinyllm.corpus.formats import SUPPORTED
from tinyllm.corpus.text import DocumentRule
from tinyllm.exchange.tokenizer_source import load_tokenizer
from tinyllm.progress import Progress
from tinyllm.shards.format import ShardSet
from tinyllm.shards.merge import merge_parts
from tinyllm.shards.part_writer import prepare_part, redoing_part
from tinyllm.shards.parts import parts_folder
from tinyllm.shards.recipe import SHARD_TOKENS, GivenOptions
from tinyllm.shards.writer import keeping_finished_shards
from tinyllm.shards.writer import prepare as prepare_shards
from tinyllm.storage.remote.outputs import directory_output
from tinyllm.text_input import standard_input

LINE_SECONDS = 10
SPLIT_RULES = {
    "hash": "by a hash of each text",
    "position": "the last tenth of the tokens",
    "source": "one file for validation",
}


def prepare(
    *files: Annotated[
        str,
        TEXT_OR_DASH,
        Parameter(help=f"Files, folders, patterns, or - for standard input; folders: {SUPPORTED}."),
    ],
    tokenizer: Annotated[Path, Parameter(help="Tokenizer directory, model directory, .model file or tokenizer.json.")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Directory to write.")],
    documents: Annotated[
        DocumentRule, Parameter(help="End of a document in plain text; auto: <|endoftext|>, else the end of the file.")
    ] = "auto",
    text_key: TextKey = None,
    validation_fraction: Annotated[float, Parameter(help="Fraction of documents for validation.")] = 0.01,
    append_eos: Annotated[
        bool, Parameter(negative="", show_default=False, help="End each document with EOS; BOS is always added.")
    ] = False,
    workers: Annotated[int | None, Parameter(help="Number of encoding processes; default: one per core.")] = None,
    shard_tokens: Annotated[int, Parameter(help="Largest number of tokens in a shard.")] = SHARD_TOKENS,
    overwrite: Annotated[
        bool, Parameter(negative="", show_default=False, help="Replace shards made from other files or options.")
    ] = False,
    cluster: ClusterFlags = NO_CLUSTER,
) -> None:
    """Turn text files into shards of token ids.

    After an interruption the same command continues; finished shards are kept. The output bytes do not depend on the
    number of workers. The tokenizer is stored with the shards.

    Several machines share the work: each runs one task, and then one machine joins the parts. The bytes are the same.

    For example:

      tinyllm prepare stories.txt --tokenizer tokenizer -o shards
      tinyllm prepare big/ --tokenizer tokenizer -o shards --task 0 --num-tasks 4
      tinyllm prepare big/ --tokenizer tokenizer -o shards --merge
      tinyllm prepare big/ --tokenizer tokens -o shards --executor ray --num-tasks 4
    """
    cluster.check(files)
    task, num_tasks = cluster.task, cluster.num_tasks
    codec = load_tokenizer(tokenizer)
    options: GivenOptions = {
        "documents": documents,
        "text_key": read_text_key(text_key),
        "validation_fraction": validation_fraction,
        "append_eos": append_eos,
        "shard_tokens": shard_tokens,
    }
    if task is not None and num_tasks is not None:
        with redoing_part(output, task, num_tasks), _save_standard_input(files) as inputs, EncodingDisplay() as display:
            path = prepare_part(
                inputs,
                codec,
                output,
                task=task,
                num_tasks=num_tasks,
                num_workers=workers,
                reporter=display,
                **options,
            )
        note(f"{shown(path)} is ready; join the parts of all {num_tasks} tasks with: the same command and --merge")
        return
    with (
        keeping_finished_shards(output),
        _save_standard_input(files) as inputs,
        directory_output(output, "shards", overwrite=overwrite, note=note) as (place, replaces),
        EncodingDisplay() as display,
    ):
        if cluster.executor is not None:
            by_tasks = prepare_by_executor(
                inputs, codec, output, cluster, options, workers=workers, overwrite=overwrite, display=display
            )
            if by_tasks is None:
                return
            shards = by_tasks
        elif cluster.merge:
            shards = merge_parts(
                inputs,
                codec,
                place,
                num_tasks=num_tasks,
                folder=parts_folder(output),
                overwrite=replaces,
                reporter=display,
                **options,
            )
        else:
            shards = prepare_shards(
                inputs, codec, place, num_workers=workers, overwrite=replaces, reporter=display, **options
            )
    for split, counts in (("train", shards.train_counts), ("validation", shards.validation_counts)):
        note(f"{split:<11} {counts.documents:>12,} documents {counts.tokens:>16,} tokens")
    note(f"{shown(output)} is ready; look at it with: tinyllm data inspect {quoted(output)}")


def inspect(
    shards: Annotated[Path, Parameter(help="Shard directory, or a folder of llama2.c's .bin files.")],
    /,
    *,
    tokenizer: Annotated[
        Path | None, Parameter(help="Tokenizer of bare .bin files; shard directories have their own.")
    ] = None,
    sample_tokens: Annotated[int, Parameter(help="Tokens of the first document to show.")] = 100,
) -> None:
    """Check shards; show counts and a decoded sample.

    Reads every byte: each file's SHA-256 must match the manifest, and each id must be in the vocabulary.

    For example:

      tinyllm data inspect shards
    """
    codec = load_tokenizer(tokenizer) if tokenizer else None
    opened = ShardSet.open(shards, tokenizer=codec, verify="full")
    _print_counts(opened)
    details = opened.details
    if details is None:
        print(f"tokenizer   {opened.tokenizer.vocab_size:,} tokens, {opened.tokenizer.name}")
        print("verified    every id is in the vocabulary; without a manifest there are no checksums")
    else:
        rule = SPLIT_RULES[details.split_rule]
        print(f"ids         {details.dtype}, BOS before each document{', EOS after' * details.append_eos}")
        print(f"tokenizer   {details.vocab_size:,} tokens, fingerprint {details.tokenizer_fingerprint[:12]}")
        print(f"split       {rule}")
        print("verified    every checksum, and every id is in the vocabulary")
    if opened.train:
        ids = opened.train[0][: max(0, sample_tokens)].tolist()
        end = ids.index(opened.tokenizer.bos_id, 1) if opened.tokenizer.bos_id in ids[1:] else len(ids)
        show(f"\nthe first document, {end} tokens of it:\n{opened.tokenizer.decode(ids[:end])}")


@contextmanager
def _save_standard_input(files: Sequence[str]) -> Iterator[list[str]]:
    """`files`, with standard input saved as a temporary file in place of `-`: `prepare` reads its inputs twice."""
    if "-" not in files:
        yield list(files)
        return
    with TemporaryDirectory(prefix="tinyllm-") as folder:
        path = Path(folder) / "standard-input.txt"
        with storage.commit_file(path) as file:
            shutil.copyfileobj(standard_input(), file)
        yield [str(path) if name == "-" else name for name in files]


class EncodingDisplay(Display):
    """Shows the progress of encoding a corpus: a bar on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._newest: Progress | None = None
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self.begin("encoding")
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None and self._bar is not None and self._newest is not None:
            # Files hold more bytes than their documents' text, so the bar would end below 100 %.
            whole = self._newest.total or self._newest.done
            super().advance(replace(self._newest, done=whole, total=whole))
        super().__exit__(error)

    def advance(self, progress: Progress) -> None:
        """Moves the bar, or prints a line every ten seconds."""
        self._newest = progress
        now = time.monotonic()
        if stderr.is_terminal:
            super().advance(progress)
        elif now - self._last_line > LINE_SECONDS:
            self._last_line = now
            self.note(self.numbers(progress) + self._time_left(progress))

    def numbers(self, progress: Progress) -> str:
        """Documents, tokens, and megabytes per second."""
        counts = "  ".join(f"{number:,} {name}" for name, number in progress.counts.items())
        return f"{counts}  {self._megabytes_per_second(progress):.1f} MB/s"

    def _megabytes_per_second(self, progress: Progress) -> float:
        return (progress.done - progress.kept) / max(1e-9, time.monotonic() - self._start) / 1e6

    def _time_left(self, progress: Progress) -> str:
        rate = self._megabytes_per_second(progress)
        if progress.total is None or not rate:
            return ""
        return f"  {max(0, progress.total - progress.done) / 1e6 / rate:.0f} s left"


def _print_counts(shards: ShardSet) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("split")
    for title in ("shards", "documents", "tokens", "size", "text", "bytes/token"):
        table.add_column(title, justify="right")
    rows = (
        ("train", shards.train, shards.train_counts),
        ("validation", shards.validation, shards.validation_counts),
    )
    for name, arrays, counts in rows:
        sizes = decimal(sum(array.nbytes for array in arrays)), decimal(counts.text_bytes)
        ratio = f"{counts.text_bytes / max(1, counts.tokens):.2f}"
        table.add_row(name, f"{len(arrays):,}", f"{counts.documents:,}", f"{counts.tokens:,}", *sizes, ratio)
    Console(highlight=False, width=None if sys.stdout.isatty() else 500).print(table)
    print()
