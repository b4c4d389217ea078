"""Makes a shard directory from text files: `prepare`.

This process reads and splits the text, all processes encode, and shards are cut at document boundaries in the order of
the corpus. So the bytes depend only on the sources, the tokenizer and the options. The number of processes and
interruptions do not matter; finished shards are kept after an interruption. `corpus` reads the text formats.
"""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Unpack

import numpy as np

from tinyllm.corpus.documents import read_documents
from tinyllm.corpus.sources import list_sources
from tinyllm.corpus.split import split_documents
from tinyllm.machine.signals import signals_as_errors
from tinyllm.progress import SILENT, Reporter
from tinyllm.shards.committing import check_output, commit_shards, is_up_to_date, report_progress
from tinyllm.shards.details import Counts
from tinyllm.shards.encoding import Batch, EncodedTexts, group
from tinyllm.shards.format import ShardSet
from tinyllm.shards.parallel import encode_in_order
from tinyllm.shards.recipe import (
    GivenOptions,
    Options,
    Recipe,
    check_options,
    digest_of_tokenizer,
    fingerprint_of,
    limit_workers,
    uncompressed_bytes,
)
from tinyllm.shards.split_writers import LabelledTexts, SplitWriters
from tinyllm.tokenizer.codec import Tokenizer


def prepare(
    inputs: Sequence[str | Path],
    tokenizer: Tokenizer,
    output: Path,
    *,
    num_workers: int | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
    **given: Unpack[GivenOptions],
) -> ShardSet:
    """Encodes the documents of `inputs` and commits `output`; resumes after an interruption.

    `given` are the options that decide the bytes (`Options`). `num_workers` None means one process a core. An `output`
    made from the same inputs and options stays unchanged.
    `reporter` receives the progress after each batch.
    With `validation_source` (a `Document.source`), that source is for validation, and each source becomes one shard
    with its name and any size: the layout of llama2.c.
    Raises InputError naming a file that cannot be used, ArtifactError if `output` cannot be written, or if it exists
    without `overwrite`.
    """
    options = Options(digest_of_tokenizer(tokenizer), **given)
    check_options(tokenizer, num_workers, options.shard_tokens)
    sources = list_sources(inputs)
    recipe = Recipe(fingerprint_of(sources), options)
    if is_up_to_date(output, recipe, reporter.note):
        return ShardSet.open(output)
    check_output(output, overwrite=overwrite)
    read = read_documents(inputs, documents=options.documents, text_key=options.text_key, note=reporter.note)
    rule, labelled = split_documents(read, options.validation_fraction, options.validation_source)
    num_workers = limit_workers(num_workers, sources)
    source_bytes = uncompressed_bytes(sources)

    def encode(writers: SplitWriters, finished: Counts) -> Generator[LabelledTexts, None, None]:
        pairs = group(writers.skip_finished(labelled), lambda pair: len(pair[0].text))
        batches = (Batch([document for document, _ in each], [label for _, label in each]) for each in pairs)
        with closing(encode_in_order(batches, tokenizer, options.append_eos, num_workers)) as encoded:
            yield from report_progress(map(_labelled, encoded), reporter, "encoding", finished, source_bytes)

    commit_shards(output, encode, rule, tokenizer, recipe, reporter.note)
    return ShardSet.open(output)


def keeping_finished_shards(output: Path) -> AbstractContextManager[None]:
    """Around `prepare` into `output`: SIGINT and SIGTERM raise Interrupted; finished shards stay in the draft."""
    return signals_as_errors(f"stopped; finished shards of {output} are kept; the same command goes on from them")


def _labelled(encoded: tuple[Batch, EncodedTexts]) -> LabelledTexts:
    batch, texts = encoded
    return LabelledTexts(texts, [document.source for document in batch.documents], np.array(batch.are_validation))
