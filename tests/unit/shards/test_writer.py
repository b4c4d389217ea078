"""Tests `prepare` against encoding documents one by one, and against itself: in parallel, interrupted, damaged."""

import csv
import json
import lzma
import multiprocessing
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outputs import contents
from recorder import Recorder
from tinyllm import storage
from tinyllm.corpus.split import split_key
from tinyllm.errors import ArtifactError, InputError, TinyllmError, UsageError
from tinyllm.progress import SILENT, Progress
from tinyllm.shards.format import ShardSet, read_document_ends
from tinyllm.shards.journal import Journal
from tinyllm.shards.split_writers import ShardWriter
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer

Run = Callable[..., ShardSet]


@pytest.mark.parametrize("name", ["stories.csv", "stories.zip", "stories.jsonl.xz", "stories.log"])
def test_every_file_format_gives_the_same_shards(name: str, run: Run, stories: list[str], tmp_path: Path) -> None:
    """The split is equal too, because it follows from the texts. The size of a packed file is not reported."""
    as_lines = "".join(json.dumps({"text": story}) + "\n" for story in stories)
    path = tmp_path / name
    if name == "stories.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("stories.jsonl", as_lines)
    elif name == "stories.csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text",), *((story,) for story in stories)])
    elif name == "stories.log":
        path.write_text("<|endoftext|>".join(stories), encoding="utf-8")
    else:
        path.write_bytes(lzma.compress(as_lines.encode()))
    recorder = Recorder()
    shards = run("from-file", inputs=path, reporter=recorder)
    expected = run("from-folder")
    for shard in sorted(expected.path.glob("*-0*")):
        assert (shards.path / shard.name).read_bytes() == shard.read_bytes()
    is_packed = name.endswith((".zip", ".xz"))
    assert recorder.progress[-1].total == (None if is_packed else path.stat().st_size)


def test_shards_hold_every_story_once_with_bos(run: Run, stories: list[str], tokenizer: Tokenizer) -> None:
    shards = run()
    assert len(shards.train) > 3
    for arrays, is_validation in ((shards.train, False), (shards.validation, True)):
        tokens = np.concatenate(arrays)
        documents = np.split(tokens, np.flatnonzero(tokens == tokenizer.bos_id)[1:])
        expected = [tokenizer.encode(text, bos=True) for text in stories if (split_key(text) < 0.1) == is_validation]
        assert sorted(document.tolist() for document in documents) == sorted(expected)


def test_counts_and_document_ends_match_the_tokens(run: Run, stories: list[str], tokenizer: Tokenizer) -> None:
    shards = run()
    assert shards.train_counts.documents + shards.validation_counts.documents == len(stories)
    total_bytes = sum(len(story.encode()) for story in stories)
    assert shards.train_counts.text_bytes + shards.validation_counts.text_bytes == total_bytes
    for entry in shards.entries:
        tokens = np.fromfile(shards.path / f"{entry.name}.bin", dtype="<u2")
        ends = read_document_ends(shards.path / f"{entry.name}.idx", len(tokens))
        assert len(ends) == entry.counts.documents
        # Each document begins with BOS, no other token is BOS, and no shard exceeds its size.
        starts = [0, *ends[:-1].astype(int)]
        assert np.flatnonzero(tokens == tokenizer.bos_id).tolist() == starts
        assert len(tokens) <= 2000


def test_eos_is_added_only_on_request(run: Run, tokenizer: Tokenizer) -> None:
    assert not any((array == tokenizer.eos_id).any() for array in run("without").train)
    shards = run("with", append_eos=True)
    ends = read_document_ends(shards.path / "train-00000.idx", len(shards.train[0])).astype(int)
    assert np.flatnonzero(shards.train[0] == tokenizer.eos_id).tolist() == (ends - 1).tolist()


def test_bytes_do_not_depend_on_the_number_of_workers(run: Run, tmp_path: Path) -> None:
    run("one", num_workers=1)
    run("two", num_workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_collected_document_does_not_keep_its_batch_in_memory(tmp_path: Path) -> None:
    with closing(Journal(tmp_path, "recipe", keep=False, note=SILENT.note)) as journal:
        writer = ShardWriter("validation", journal, "uint16", 2000)
        batch = np.arange(1000, dtype=np.uint16)
        writer.add(batch[:10], lengths=np.array([10]), text_bytes=np.array([40]))
    assert not any(np.shares_memory(tokens, batch) for tokens in writer._tokens)


class Stopped(KeyboardInterrupt):
    pass


class StopAfter(Recorder):
    """Stops at a number of batches."""

    def __init__(self, num_batches: int) -> None:
        super().__init__(self._stop)
        self._num_batches = num_batches

    def _stop(self, _: Progress) -> None:
        if len(self.progress) == self._num_batches:
            raise Stopped


def test_interrupted_run_resumes_and_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    run("whole")
    notes: list[str] = []
    for num_batches in (9, 12, 15):
        stopper = StopAfter(num_batches)
        with pytest.raises(Stopped):
            run("broken", reporter=stopper)
        assert not (tmp_path / "broken").exists()
        notes += stopper.notes
    resumed = Recorder()
    run("broken", reporter=resumed)
    notes += resumed.notes
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert not (tmp_path / "broken.tmp").exists()
    assert len(notes) == 3
    assert "resuming an interrupted prepare" in notes[-1]
    # Finished shards were not encoded again.
    whole = Recorder()
    run("again", reporter=whole)
    assert resumed.progress[0].kept > 0
    assert len(resumed.progress) < len(whole.progress)


def test_damaged_shards_of_an_interrupted_run_are_encoded_again(run: Run, tmp_path: Path) -> None:
    run("whole")
    with pytest.raises(Stopped):
        run("broken", reporter=StopAfter(20))
    (draft,) = (draft.new for draft in storage.drafts_of(tmp_path / "broken"))
    shard = draft / "train-00001.bin"
    shard.write_bytes(b"\0" + shard.read_bytes()[1:])
    (draft / "train-00099.bin").write_bytes(b"half a shard")
    with (draft / "journal.jsonl").open("a") as journal:
        journal.write('{"entry": {"name": "../../x"}, "sha256": {}}\n{"entry": ')
    run("broken")
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_a_changed_source_restarts(run: Run, stories: list[str], corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run("broken", reporter=StopAfter(20))
    (corpus / "a.txt").write_text("\n<|endoftext|>\n".join(stories[50:150]))
    run("whole")
    run("broken")
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_equal_inputs_are_up_to_date_and_others_are_refused(run: Run, tmp_path: Path) -> None:
    run()
    before = contents(tmp_path / "shards")
    stopper = StopAfter(1)
    run(num_workers=2, reporter=stopper)
    assert stopper.notes == [f"{tmp_path / 'shards'} is up to date: made from the same files, tokenizer and options"]
    with pytest.raises(
        ArtifactError, match="exists already; choose another place, or replace it with `overwrite=True`"
    ):
        run(append_eos=True)
    assert contents(tmp_path / "shards") == before
    assert run(append_eos=True, overwrite=True).details.append_eos  # type: ignore[union-attr]


def test_one_document_is_split_by_position(run: Run, stories: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "\n".join(stories[:50])
    (tmp_path / "novel.txt").write_text(text + "\n", encoding="utf-8")
    recorder = Recorder()
    shards = run(inputs=tmp_path / "novel.txt", reporter=recorder)
    ids = tokenizer.encode(text, bos=True)
    assert np.concatenate([*shards.train, *shards.validation]).tolist() == ids
    assert shards.validation_counts.tokens == len(ids) // 10
    assert "only 1 document(s)" in recorder.notes[0]
    # Text bytes are counted in the split of their tokens.
    validation_text = b"".join(map(tokenizer.piece_bytes, shards.validation[0].tolist()))
    assert shards.validation_counts.text_bytes == len(validation_text)
    assert shards.train_counts.text_bytes + shards.validation_counts.text_bytes == len(text.encode())


def test_few_documents_are_split_by_position_too(
    run: Run, stories: list[str], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    texts = stories[:12]
    (tmp_path / "few.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    shards = run(inputs=tmp_path / "few.txt")
    ids = [id for text in texts for id in tokenizer.encode(text, bos=True)]
    assert np.concatenate([*shards.train, *shards.validation]).tolist() == ids
    total = sum(len(text.encode()) for text in texts)
    assert shards.train_counts.text_bytes + shards.validation_counts.text_bytes == total


def test_text_that_cannot_be_encoded_is_named_by_file(run: Run, tmp_path: Path, tokenizer: Tokenizer) -> None:
    lines = [f'{{"text": "{number} fine"}}' for number in range(30)]
    (tmp_path / "bad.jsonl").write_text("\n".join([*lines, '{"text": "half \\ud83d"}']) + "\n")
    with pytest.raises(InputError, match=r"bad\.jsonl.*surrogate"):
        run(inputs=tmp_path / "bad.jsonl", num_workers=2)
    assert not (tmp_path / "shards").exists()


def test_the_death_of_a_worker_names_the_file(run: Run, tmp_path: Path) -> None:
    def kill_workers(_: Progress) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(TinyllmError, match=r"a worker process died while encoding .*[ab]\.txt.*fewer `num_workers`"):
        run(num_workers=2, reporter=Recorder(kill_workers))
    assert run().train_counts.documents > 0


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"num_workers": 0}, "num_workers is 0; it can be 1 to 1024"),
        ({"num_workers": 1_000_000}, "num_workers is 1000000; it can be 1 to 1024"),
        ({"shard_tokens": 0}, "shard_tokens is 0; at least 1"),
        ({"validation_fraction": 0.9}, "validation_fraction is 0.9"),
        ({"inputs": "-"}, "standard input"),
    ],
)
def test_options_out_of_range_are_refused(run: Run, options: dict[str, object], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        run(**options)


def test_unwritable_output_is_refused(corpus: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="not a directory"):
        prepare([corpus], tokenizer, tmp_path / "file" / "shards", num_workers=1)


def test_a_second_run_at_the_same_time_is_refused(run: Run) -> None:
    def start_another(_: Progress) -> None:
        run()

    with pytest.raises(ArtifactError, match="is being written by another process"):
        run(reporter=Recorder(start_another))


def by_source(folder: Path, stories: list[str], tokenizer: Tokenizer, name: str = "by-source", **options: Any) -> Path:
    """Shards of four JSON files; the first file is for validation, and two files have the same name."""
    for number, place in enumerate(("data00.json", "data01.json", "data02.json", "more/data01.json")):
        path = folder / "json" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([{"story": story} for story in stories[number::4]]))
    first = str(folder / "json" / "data00.json")
    prepare([folder / "json"], tokenizer, folder / name, validation_source=first, num_workers=1, **options)
    return folder / name


def test_each_source_becomes_one_shard(stories: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = by_source(tmp_path, stories, tokenizer)
    names = ["data00", "data01", "data02", "data01-2"]
    assert sorted(path.stem for path in folder.glob("*.bin")) == sorted(names)
    for number, name in enumerate(names):
        expected = [id for story in stories[number::4] for id in tokenizer.encode(story.strip(), bos=True)]
        assert np.fromfile(folder / f"{name}.bin", dtype="<u2").tolist() == expected
    shards = ShardSet.open(folder, verify="full")
    assert (len(shards.validation), shards.validation_counts.documents) == (1, len(stories[::4]))
    assert (len(shards.train), shards.train_counts.documents) == (3, len(stories) - len(stories[::4]))


def test_shards_by_source_resume_after_an_interruption(
    stories: list[str], tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(by_source(tmp_path, stories, tokenizer, "whole"))
    monkeypatch.setattr("tinyllm.shards.encoding.BATCH_CHARACTERS", 500)

    def stop(progress: Progress) -> None:
        if progress.counts["documents"] > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        by_source(tmp_path, stories, tokenizer, "again", reporter=Recorder(stop))
    resumed = Recorder()
    assert contents(by_source(tmp_path, stories, tokenizer, "again", reporter=resumed)) == expected
    assert any(note.startswith("resuming an interrupted prepare: 2 finished shard(s)") for note in resumed.notes)


def test_a_validation_source_without_text_is_refused(stories: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text(stories[0])
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    with pytest.raises(InputError, match=r"a\.txt has no text, so there is nothing for validation"):
        prepare(files, tokenizer, tmp_path / "out", validation_source=str(files[0]), num_workers=1)
    with pytest.raises(InputError, match="leaves nothing to train on"):
        prepare(files, tokenizer, tmp_path / "out", validation_source=str(files[1]), num_workers=1)
