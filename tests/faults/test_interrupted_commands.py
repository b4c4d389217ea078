"""`prepare`, tokenizer training and downloads are killed at any point and then run again."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import trials
from loopback import FileServer, Handler, cut, well
from outputs import contents
from recorder import Recorder
from tinyllm import storage
from tinyllm.corpus.download import download
from tinyllm.errors import InputError, TinyllmError
from tinyllm.shards.format import ShardSet
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three files of a few hundred short documents."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in "abc":
        lines = [f"Once upon a time the {name} fox number {n} saw {n * n} red balls." for n in range(300)]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture
def tokenizer(tiny_tokenizer: Tokenizer, tmp_path: Path) -> Path:
    (tmp_path / "tiny.model").write_bytes(tiny_tokenizer.model_proto)
    return tmp_path / "tiny.model"


def die_after(changes: int, arguments: list[str]) -> None:
    """Runs a command that is killed after the given number of changes on disk."""
    left = changes

    def count_down(operation: str, path: Path) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    storage.disk.after_operation = count_down
    trials.command(*arguments)


def die_later(seconds: float, arguments: list[str]) -> None:
    """Runs a command that is killed after the given time."""

    def kill_later() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill_later, daemon=True).start()
    trials.command(*arguments)


@pytest.mark.promise("10 prepare killed anywhere, run again: the same bytes", fast=3, full=20)
def test_prepare_is_killed_and_run_again(
    count: int, tell: Callable[[str], None], corpus: Path, tokenizer: Path, tmp_path: Path
) -> None:
    def arguments(output: Path, workers: int = 1) -> list[str]:
        flags = ["--documents", "line", "--shard-tokens", "1000", "--workers", str(workers), "-o", str(output)]
        return ["prepare", str(corpus), "--tokenizer", str(tokenizer), *flags]

    whole = tmp_path / "whole"
    begin = time.monotonic()
    assert trials.Trial(tmp_path / "out.txt", trials.command, *arguments(whole)).end() == 0
    seconds = time.monotonic() - begin
    expected = contents(whole)
    number, went_on = random.Random(count), 0
    for index in range(count):
        output = tmp_path / f"shards{index}"
        if index % 2:
            trial = trials.Trial(tmp_path / "out.txt", die_later, number.uniform(0, seconds), arguments(output))
        else:
            trial = trials.Trial(tmp_path / "out.txt", die_after, number.randrange(1, 250), arguments(output))
        assert trial.end() in (-signal.SIGKILL, 0), trial.text()
        again = trials.Trial(tmp_path / "again.txt", trials.command, *arguments(output, workers=1 + index % 2))
        assert again.end() == 0, again.text()
        went_on += "resuming an interrupted prepare" in again.text()
        assert contents(output) == expected, f"trial {index}"
        assert storage.drafts_in(output.parent) == []
    tell(f"{count} of {count} the same bytes, {went_on} of them resumed from finished shards")


@pytest.mark.promise("10 one of three tasks of prepare killed anywhere, done again: the same bytes", fast=3, full=30)
def test_a_task_of_prepare_is_killed_and_done_again(
    count: int, tell: Callable[[str], None], corpus: Path, tokenizer: Path, tmp_path: Path
) -> None:
    """The first and last tasks run once; the second, or the merge, is killed at a random moment and run again."""

    def arguments(output: Path, *flags: str) -> list[str]:
        reading = ["--documents", "line", "--shard-tokens", "1000", *flags, "-o", str(output)]
        return ["prepare", str(corpus), "--tokenizer", str(tokenizer), *reading]

    def run_task(output: Path, task: int) -> list[str]:
        return arguments(output, "--task", str(task), "--num-tasks", "3", "--workers", "1")

    whole = tmp_path / "whole"
    assert trials.Trial(tmp_path / "out.txt", trials.command, *arguments(whole)).end() == 0
    begin = time.monotonic()
    assert trials.Trial(tmp_path / "out.txt", trials.command, *run_task(tmp_path / "timed", 1)).end() == 0
    seconds = time.monotonic() - begin
    number, killed, in_merge = random.Random(count), 0, 0
    for index in range(count):
        output = tmp_path / f"shards{index}"
        for task in (2, 0):
            assert trials.Trial(tmp_path / "out.txt", trials.command, *run_task(output, task)).end() == 0
        is_merge = index % 3 == 2
        if is_merge:
            assert trials.Trial(tmp_path / "out.txt", trials.command, *run_task(output, 1)).end() == 0
        victim = arguments(output, "--merge") if is_merge else run_task(output, 1)
        if index % 2:
            trial = trials.Trial(tmp_path / "out.txt", die_later, number.uniform(0, seconds), victim)
        else:
            trial = trials.Trial(tmp_path / "out.txt", die_after, number.randrange(1, 180 if is_merge else 14), victim)
        code = trial.end()
        assert code in (-signal.SIGKILL, 0), trial.text()
        killed, in_merge = killed + (code != 0), in_merge + (code != 0 and is_merge)
        for command in (run_task(output, 1), arguments(output, "--merge")):
            if not output.exists():
                again = trials.Trial(tmp_path / "again.txt", trials.command, *command)
                assert again.end() == 0, again.text()
        assert contents(output) == contents(whole), f"trial {index}"
        assert storage.drafts_in(output.parent) == []
    assert killed >= count // 2
    tell(f"{killed} of {count} killed, {in_merge} of them in the merge; {count} of {count} the same bytes")


@pytest.mark.promise("10 a worker that dies, a document that cannot be read: named", fast=2, full=10)
def test_impossible_tasks_of_prepare_are_named(
    count: int,
    tell: Callable[[str], None],
    corpus: Path,
    tiny_tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for index in range(count):
        name = "abc"[index % 3] + ".txt"
        content = (corpus / name).read_bytes()
        (corpus / name).write_bytes(content[: 500 + index] + b"\xff" + content[500 + index :])
        with pytest.raises(InputError, match=rf"{name} is not UTF-8 at line \d+, byte {500 + index} "):
            prepare([corpus], tiny_tokenizer, tmp_path / f"bad{index}", documents="line", num_workers=1)
        (corpus / name).write_bytes(content)

    monkeypatch.setattr("tinyllm.shards.writer.limit_workers", lambda workers, sources: 2)
    monkeypatch.setattr("tinyllm.shards.encoding.BATCH_CHARACTERS", 2000)
    for index in range(count // 2):
        output = tmp_path / f"dead{index}"
        deaths: list[int] = []

        def kill_a_worker(progress: object, deaths: list[int] = deaths) -> None:
            if deaths:
                return  # documents encoded before the kill are still reported
            children = subprocess.run(
                ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True
            )
            workers = [line.split()[0] for line in children.stdout.decode().splitlines() if "spawn_main" in line]
            deaths.append(int(workers[0]))
            os.kill(deaths[0], signal.SIGKILL)
            time.sleep(0.2)

        with pytest.raises(TinyllmError, match=rf"a worker process died while encoding {corpus}/[abc]\.txt"):
            prepare([corpus], tiny_tokenizer, output, documents="line", num_workers=2, reporter=Recorder(kill_a_worker))
        assert deaths
        assert ShardSet.open(prepare([corpus], tiny_tokenizer, output, documents="line", num_workers=1).path).train
    tell(f"{count} unreadable documents, {count // 2} dead workers: each named, nothing half written")


@pytest.mark.promise("10 tokenizer train killed anywhere, run again: the same bytes", fast=3, full=20)
def test_tokenizer_training_is_killed_and_run_again(
    count: int, tell: Callable[[str], None], corpus: Path, tmp_path: Path
) -> None:
    def arguments(output: Path) -> list[str]:
        return ["tokenizer", "train", str(corpus), "--vocab-size", "310", "-o", str(output)]

    whole = tmp_path / "whole"
    begin = time.monotonic()
    assert trials.Trial(tmp_path / "out.txt", trials.command, *arguments(whole)).end() == 0
    seconds = time.monotonic() - begin
    number, done = random.Random(count), 0
    for index in range(count):
        output = tmp_path / f"tokenizer{index}"
        if index % 2:
            trial = trials.Trial(tmp_path / "out.txt", die_later, number.uniform(0, seconds), arguments(output))
        else:
            trial = trials.Trial(tmp_path / "out.txt", die_after, 1 + index // 2 % 13, arguments(output))
        trial.end()
        if output.exists():
            done += 1  # The output is whole or absent, also if the kill came after the end.
            storage.verify(output, "tokenizer")
        else:
            again = trials.Trial(tmp_path / "again.txt", trials.command, *arguments(output))
            assert again.end() == 0, again.text()
        assert contents(output) == contents(whole), f"trial {index}"
        assert storage.drafts_in(output.parent) == []
    tell(f"{count} of {count} the same bytes; {done} were whole before the second run")


def offsets(count: int, size: int) -> list[int]:
    """Offsets to cut at: the edges, and others between them."""
    number = random.Random(count)
    return [*(number.randrange(size) for _ in range(max(2, count - 3))), 0, 1, size - 1][:count]


@pytest.mark.promise("10 downloads cut off anywhere: the same bytes", fast=20, full=200)
def test_a_download_resumes_where_it_was_cut(
    count: int, tell: Callable[[str], None], file_server: FileServer, tmp_path: Path
) -> None:
    for index, place in enumerate(offsets(count, len(file_server.content))):
        target = tmp_path / f"file{index}.bin"
        file_server.plan = [cut(place)]
        download(f"{file_server.address}/{index}", target, sleep=lambda _: None)
        assert target.read_bytes() == file_server.content
        assert not list(tmp_path.glob(f"{target.name}.part*"))
    tell(f"{count} of {count} the same bytes")


DOWNLOAD = """
import sys
from pathlib import Path
from tinyllm.corpus.download import download
download(sys.argv[1], Path(sys.argv[2]))
"""


@pytest.mark.promise("10 downloads killed anywhere, run again: the same bytes", fast=2, full=20)
def test_a_killed_download_resumes(
    count: int, tell: Callable[[str], None], file_server: FileServer, tmp_path: Path
) -> None:
    went_on = 0
    for index, place in enumerate(offsets(count, len(file_server.content))):
        target, reached = tmp_path / f"file{index}.bin", threading.Event()

        def stall(handler: Handler, server: FileServer, place: int = place, reached: threading.Event = reached) -> None:
            handler.start(200, Content_Length=len(server.content), ETag=server.etag)
            handler.wfile.write(server.content[:place])
            handler.wfile.flush()
            reached.set()
            time.sleep(0.3)

        file_server.plan = [stall]
        address = f"{file_server.address}/{index}"
        child = subprocess.Popen([sys.executable, "-c", DOWNLOAD, address, str(target)], stderr=subprocess.DEVNULL)
        assert reached.wait(60)
        time.sleep(0.1)
        child.kill()
        child.wait()
        assert not target.exists()
        file_server.plan = [well]
        download(address, target, sleep=lambda _: None)
        went_on += file_server.ranges()[-1] is not None
        assert target.read_bytes() == file_server.content
    tell(f"{count} of {count} the same bytes; {went_on} resumed where they were cut")
