"""Tests that the parts of several tasks give the bytes of one process, and that a wrong part is named."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outputs import contents
from recorder import Recorder
from tinyllm import storage
from tinyllm.errors import ArtifactError, InputError, MismatchError, TinyllmError, UsageError
from tinyllm.shards.format import ShardSet
from tinyllm.shards.merge import merge_parts
from tinyllm.shards.part_writer import prepare_part
from tinyllm.shards.parts import BATCHES_NAME, INDEX_NAME, part_path, parts_folder
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_model

Run = Callable[..., ShardSet]
OPTIONS: dict[str, Any] = {"shard_tokens": 2000, "validation_fraction": 0.1}


class Cluster:
    """Makes the parts of a corpus and merges them."""

    def __init__(self, inputs: Path, tokenizer: Tokenizer, output: Path, num_tasks: int = 3, **options: Any) -> None:
        self.inputs, self.tokenizer, self.output, self.num_tasks = inputs, tokenizer, output, num_tasks
        self.options = OPTIONS | options

    def part(self, task: int, **options: Any) -> Path:
        options = {"num_workers": 1, **self.options, **options}
        return prepare_part([self.inputs], self.tokenizer, self.output, task=task, num_tasks=self.num_tasks, **options)

    def all_parts(self) -> list[Path]:
        return [self.part(task) for task in range(self.num_tasks)]

    def merge(self, **options: Any) -> ShardSet:
        return merge_parts([self.inputs], self.tokenizer, self.output, **(self.options | options))


@pytest.fixture
def cluster(corpus: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr("tinyllm.shards.encoding.BATCH_CHARACTERS", 500)
    return Cluster(corpus, tokenizer, tmp_path / "joint")


@pytest.mark.parametrize("num_tasks", [1, 2, 5, 40])
@pytest.mark.parametrize("fraction", [0.1, 1e-6])
def test_parts_give_the_bytes_of_one_process(
    num_tasks: int, fraction: float, run: Run, cluster: Cluster, tmp_path: Path
) -> None:
    """With the tiny fraction no key is below it, so that documents wait for the lowest key, in `prepare` as here."""
    expected = run("whole", validation_fraction=fraction)
    cluster.num_tasks = num_tasks
    cluster.options["validation_fraction"] = fraction
    parts = cluster.all_parts()
    assert sum(path.is_dir() for path in parts) == num_tasks
    merged = cluster.merge()
    assert contents(merged.path) == contents(expected.path)
    assert not parts_folder(cluster.output).exists(), "merged parts are removed"
    assert run("joint", validation_fraction=fraction).path == merged.path, "prepare finds the shards up to date"


def test_many_files_of_random_sizes_give_the_bytes_of_one_process(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyllm.shards.encoding.BATCH_CHARACTERS", 300)
    draw = random.Random(7)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(25):
        lines = [f"{number} cat {draw.random()} sat" for _ in range(draw.choice([0, 1, 2, 30, 200]))]
        (folder / f"{number:02}.txt").write_text("\n".join(lines), encoding="utf-8")
    for num_tasks in (2, 3, 7):
        cluster = Cluster(folder, tokenizer, tmp_path / f"joint{num_tasks}", num_tasks, documents="line")
        expected = prepare([folder], tokenizer, tmp_path / f"whole{num_tasks}", num_workers=1, **cluster.options)
        cluster.all_parts()
        assert contents(cluster.merge().path) == contents(expected.path)


def test_few_documents_are_split_by_position_and_a_source_by_name(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "c.txt"):
        (folder / name).write_text("\n".join(f"the cat {name} sat {number}" for number in range(6)), encoding="utf-8")
    ways: dict[str, dict[str, Any]] = {"position": {}, "source": {"validation_source": str(folder / "b.txt")}}
    for name, options in ways.items():
        cluster = Cluster(folder, tokenizer, tmp_path / f"joint-{name}", documents="line", **options)
        expected = prepare([folder], tokenizer, tmp_path / name, num_workers=1, **cluster.options)
        cluster.all_parts()
        merged = cluster.merge()
        assert contents(merged.path) == contents(expected.path)
        assert merged.details is not None
        assert merged.details.split_rule == name


def test_a_stopped_task_leaves_no_part_and_is_done_again(run: Run, cluster: Cluster) -> None:
    expected = run("whole")
    cluster.part(0)
    cluster.part(2)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster.part(1, reporter=Recorder(stop))
    with pytest.raises(ArtifactError, match=r"part-00001-of-00003 is missing: of 3 tasks, 1 left no part \(1\)"):
        cluster.merge(num_tasks=3)
    cluster.part(1)
    again = Recorder()
    cluster.part(0, reporter=again)
    assert "is up to date" in again.notes[-1]
    assert not again.progress
    assert contents(cluster.merge().path) == contents(expected.path)


def test_a_stopped_merge_goes_on_from_finished_shards(run: Run, cluster: Cluster) -> None:
    expected = run("whole")
    cluster.all_parts()

    def stop(progress: Any) -> None:
        if progress.counts["tokens"] > 6000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster.merge(reporter=Recorder(stop))
    resumed = Recorder()
    assert contents(cluster.merge(reporter=resumed).path) == contents(expected.path)
    assert "resuming an interrupted prepare" in resumed.notes[0]
    assert resumed.progress[0].kept > 0


def truncate(part: Path) -> None:
    (part / BATCHES_NAME).write_bytes((part / BATCHES_NAME).read_bytes()[:-1])


def flip(part: Path, name: str, place: int) -> None:
    content = bytearray((part / name).read_bytes())
    content[place] ^= 1
    (part / name).write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "lost": lambda part: shutil.rmtree(part),
    "cut": truncate,
    "batch": lambda part: flip(part, BATCHES_NAME, -1),
    "index": lambda part: flip(part, INDEX_NAME, 20),
    "manifest": lambda part: flip(part, storage.MANIFEST_NAME, 60),
    "empty": lambda part: (part / INDEX_NAME).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_named_and_done_again(damage: str, run: Run, cluster: Cluster) -> None:
    cluster.all_parts()
    part = part_path(parts_folder(cluster.output), 1, 3)
    DAMAGES[damage](part)
    with pytest.raises(ArtifactError, match=r"part-00001-of-00003.*prepare_part\(task=1, num_tasks=3\)"):
        cluster.merge(num_tasks=3)
    assert not cluster.output.exists()
    cluster.part(1)
    assert contents(cluster.merge(num_tasks=3).path) == contents(run("whole").path)


def foreign_parts(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The reason that the merge should give, and a part 1 that does not belong to the others."""
    other = Cluster(cluster.inputs, cluster.tokenizer, tmp_path / "other")
    yield "documents=line instead of documents=auto", other.part(1, documents="line")
    yield "append_eos=True instead of append_eos=False", other.part(1, append_eos=True)
    yield "validation_fraction=0.2 instead of validation_fraction=0.1", other.part(1, validation_fraction=0.2)
    yield "shard_tokens=900 instead of shard_tokens=2000", other.part(1, shard_tokens=900)
    other.tokenizer = Tokenizer.from_bytes(train_model(["cat dog mat " * 50], 270), "other.model")
    yield "another tokenizer", other.part(1)
    other.tokenizer = cluster.tokenizer
    yield "task=2 of num_tasks=3, under another name", other.part(2)
    other.num_tasks = 2
    yield "task=1 of num_tasks=2, under another name", other.part(1)
    other.num_tasks = 3
    copy = tmp_path / "copy"
    shutil.copytree(cluster.inputs, copy)
    other.inputs = copy
    changed = (copy / "a.txt").read_text(encoding="utf-8").replace("cat", "cow")
    (copy / "a.txt").write_text(changed, encoding="utf-8")
    yield r"another content of .*corpus/a\.txt", other.part(1)
    (copy / "a.txt").write_text(changed + " and more", encoding="utf-8")
    yield "files of other names or sizes", other.part(1)


def test_a_foreign_part_is_named(cluster: Cluster, tmp_path: Path) -> None:
    cluster.all_parts()
    place = part_path(parts_folder(cluster.output), 1, 3)
    for reason, part in foreign_parts(cluster, tmp_path):
        shutil.rmtree(place)
        shutil.copytree(part, place)
        with pytest.raises(MismatchError, match=f"part-00001-of-00003 does not belong.* made with {reason}"):
            cluster.merge()
    cluster.part(1)
    cluster.merge()


def test_files_that_change_between_task_and_merge_are_named(cluster: Cluster) -> None:
    cluster.all_parts()
    path = cluster.inputs / "b.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("dog", "cow"), encoding="utf-8")
    with pytest.raises(MismatchError, match=r"part-0000\d-of-00003 .* another content of .*b\.txt"):
        cluster.merge()


@pytest.mark.parametrize(
    ("task", "num_tasks", "message"),
    [(3, 3, "task is 3; of 3 tasks it can be 0 to 2"), (-1, 2, "task is -1"), (0, 0, "num_tasks is 0")],
)
def test_a_task_that_does_not_exist_is_refused(task: int, num_tasks: int, message: str, cluster: Cluster) -> None:
    cluster.num_tasks = num_tasks
    with pytest.raises(UsageError, match=message):
        cluster.part(task)


def test_without_one_number_of_tasks_the_merge_asks_for_it(cluster: Cluster) -> None:
    with pytest.raises(ArtifactError, match="has no parts to merge"):
        cluster.merge()
    cluster.all_parts()
    cluster.num_tasks = 2
    cluster.part(0)
    with pytest.raises(MismatchError, match="parts of 2 and of 3 tasks"):
        cluster.merge()
    assert cluster.merge(num_tasks=3).train
    assert [path.name for path in parts_folder(cluster.output).iterdir()] == ["part-00000-of-00002"]


def test_errors_of_the_corpus_are_those_of_prepare(cluster: Cluster, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.txt").write_text(" \n", encoding="utf-8")
    nothing = Cluster(empty, cluster.tokenizer, tmp_path / "nothing", 2)
    nothing.all_parts()
    with pytest.raises(InputError, match="the corpus is empty"):
        nothing.merge()
    (empty / "a.txt").write_text("same text\n" * 30, encoding="utf-8")
    copies = Cluster(empty, cluster.tokenizer, tmp_path / "copies", 2, documents="line")
    copies.all_parts()
    with pytest.raises(InputError, match="nothing to train on: all 30 documents"):
        copies.merge()
    with pytest.raises(TinyllmError, match="validation_fraction is 0.9"):
        cluster.part(0, validation_fraction=0.9)


def test_foreign_files_in_a_part_stay(cluster: Cluster) -> None:
    part = cluster.all_parts()[0]
    (part / "notes.txt").write_text("mine", encoding="utf-8")
    cluster.merge()
    assert (part / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_task_refuses_an_output_that_the_merge_could_not_replace(cluster: Cluster) -> None:
    cluster.output.write_text("mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match="will not replace"):
        cluster.part(0)
    assert not parts_folder(cluster.output).exists()


@pytest.mark.parametrize("output", [Path(), Path("/"), Path("..")])
def test_an_output_without_a_name_is_refused(output: Path, cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="output is .*, which has no name of its own"):
        parts_folder(output)
