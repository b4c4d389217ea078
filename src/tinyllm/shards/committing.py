"""Commits a shard directory from encoded documents: the checks before, the draft with its journal, the manifest.

`writer` encodes the documents itself, and `merge` takes them from parts.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from tinyllm import storage
from tinyllm.corpus.split import SplitRule
from tinyllm.errors import ArtifactError, InputError
from tinyllm.progress import Note, Progress, Reporter
from tinyllm.shards.details import Counts, ShardDetails
from tinyllm.shards.encoding import dtype_for
from tinyllm.shards.journal import JOURNAL_NAME, Journal
from tinyllm.shards.recipe import Recipe
from tinyllm.shards.split_writers import LabelledTexts, SplitWriters
from tinyllm.tokenizer.codec import Tokenizer

EncodeRest = Callable[[SplitWriters, Counts], Generator[LabelledTexts, None, None]]
"""Gives the encoded documents that finished shards lack, in order; the counts are those of the finished shards."""


def is_up_to_date(output: Path, recipe: Recipe, note: Note) -> bool:
    """Whether `output` is a complete shard directory made by this recipe; then `note` gets a line that says so."""
    try:
        manifest = storage.scan_manifest(output, "shards", "changed", on_item=storage.leave_out)
    except (ArtifactError, InputError):
        return False  # missing or incomplete; `check_output` names the fault
    if manifest.details.get("recipe_fingerprint") != recipe.fingerprint:
        return False
    storage.remove_dead_drafts_of(output)
    note(f"{output} is up to date: made from the same files, tokenizer and options")
    return True


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raises ArtifactError if shards cannot be written to `output`."""
    storage.check_replaceable(output, "shards", overwrite=overwrite)
    storage.check_writable(output)


def commit_shards(
    output: Path, encode: EncodeRest, rule: SplitRule, tokenizer: Tokenizer, recipe: Recipe, note: Note
) -> None:
    """Commits `output`; after an interruption, its draft keeps the finished shards."""
    # A split by position is known only at the end of the corpus, so it cannot be resumed.
    can_resume = rule != "position"
    with storage.commit_directory(output, "shards", resumable=True, with_stamps=True) as draft:
        journal = Journal(draft.path, recipe.fingerprint, keep=can_resume, note=note)
        draft.temporary_names.add(JOURNAL_NAME)
        shard_tokens = None if rule == "source" else recipe.options.shard_tokens
        writers = SplitWriters(journal, dtype_for(tokenizer.vocab_size), shard_tokens)
        try:
            with closing(journal), closing(encode(writers, journal.counts)) as encoded:
                line = writers.write(rule, encoded, tokenizer)
        finally:
            draft.keep = can_resume and bool(journal.entries)
        if line is not None:
            note(line)
        for name, content in tokenizer.files.items():
            draft.write(name, content)
        draft.sha256 = journal.sha256
        draft.details = _details(tokenizer, recipe, rule, journal).model_dump()


def report_progress(
    encoded: Iterable[LabelledTexts], reporter: Reporter, label: str, finished: Counts, source_bytes: int | None
) -> Iterator[LabelledTexts]:
    """Passes documents on and reports running totals after each batch, counted from `finished`.

    The bytes are those of the documents' text: fewer than `source_bytes`, the size of the files (None if compressed).
    """
    documents, tokens, text_bytes = finished.documents, finished.tokens, finished.text_bytes
    for labelled in encoded:
        yield labelled
        documents += len(labelled.texts.lengths)
        tokens += len(labelled.texts.ids)
        text_bytes += int(labelled.texts.text_bytes.sum())
        counts = {"documents": documents, "tokens": tokens}
        reporter.advance(Progress(label, text_bytes, source_bytes, "bytes", finished.text_bytes, counts))


def _details(tokenizer: Tokenizer, recipe: Recipe, rule: SplitRule, journal: Journal) -> ShardDetails:
    return ShardDetails(
        format_version=2,
        vocab_size=tokenizer.vocab_size,
        dtype=dtype_for(tokenizer.vocab_size),
        tokenizer_fingerprint=tokenizer.fingerprint,
        source_fingerprint=recipe.source_fingerprint,
        recipe_fingerprint=recipe.fingerprint,
        split_rule=rule,
        validation_fraction=recipe.options.validation_fraction,
        append_eos=recipe.options.append_eos,
        shards=sorted(journal.entries, key=lambda entry: entry.name),
    )
