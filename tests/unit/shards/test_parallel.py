"""Tests parallel encoding: this process takes over the batches of slow workers, and no temporary file remains."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyllm.corpus.documents import Document
from tinyllm.errors import ArtifactError
from tinyllm.shards import parallel
from tinyllm.shards.encoding import Batch, Encoder
from tinyllm.shards.format import ShardSet
from tinyllm.tokenizer.codec import Tokenizer

Run = Callable[..., ShardSet]
start_worker = parallel._start_worker
WORKER_SECONDS = 2.0


def start_late(*arguments: Any) -> None:
    """Starts a worker late, as on a busy machine."""
    time.sleep(WORKER_SECONDS)
    start_worker(*arguments)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is used for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_batches_of_a_slow_worker_are_reclaimed(
    stories: list[str], tokenizer: Tokenizer, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[Batch] = []

    def count_and_encode(encoder: Encoder, batch: Batch) -> Any:
        here.append(batch)
        return encode_here(encoder, batch)

    encode_here = parallel._encode_here
    monkeypatch.setattr(parallel, "_encode_here", count_and_encode)
    monkeypatch.setattr(parallel, "_start_worker", start_late)
    batches = [Batch([Document(story, "a.txt")], [False]) for story in stories[: parallel.BATCHES_PER_WORKER]]
    encoded = list(parallel.encode_in_order(batches, tokenizer, append_eos=False, num_workers=2))
    assert [batch for batch, _ in encoded] == batches
    for (_, texts), story in zip(encoded, stories, strict=False):
        assert texts.ids.tolist() == tokenizer.encode(story, bos=True)
    # Batches are reclaimed from the end; the pool counts up to three as started: the worker's and those in its pipe.
    assert len(here) >= parallel.BATCHES_PER_WORKER - 3
    assert here == batches[: -len(here) - 1 : -1]
    assert not any(temporary.iterdir())


def test_a_full_temporary_folder_is_named(run: Run, tmp_path: Path, temporary: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows limits no file's size")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))
    try:
        with pytest.raises(ArtifactError, match=r"temporary/.*batch-0: File too large; make room, .*TMPDIR"):
            run(num_workers=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not any(temporary.iterdir())
    assert run(num_workers=2).train_counts.documents > 0


def test_a_missing_temporary_folder_is_named(run: Run, temporary: Path) -> None:
    temporary.rmdir()
    with pytest.raises(ArtifactError, match=r"temporary: No such file or directory; make room, .*TMPDIR"):
        run(num_workers=2)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_a_killed_run_leaves_no_temporary_files(corpus: Path, tokenizer: Tokenizer, temporary: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from tinyllm.progress import Reporter
from tinyllm.shards import encoding, recipe, writer
from tinyllm.tokenizer.codec import Tokenizer

class KillThisProcess(Reporter):
    def advance(self, progress):
        assert any(Path({str(temporary)!r}).iterdir()), "batches travel through this folder"
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    encoding.BATCH_CHARACTERS, recipe.PROCESS_BYTES = 500, 1000
    tokenizer = Tokenizer.from_bytes({tokenizer.model_proto!r}, "test.model")
    writer.prepare([{str(corpus)!r}], tokenizer, Path({str(temporary.parent / "shards")!r}), num_workers=2,
                   reporter=KillThisProcess())
"""
    file = temporary.parent / "script.py"
    file.write_text(script)
    killed = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=60)
    assert killed.returncode == -9, killed.stderr
    end = time.monotonic() + 20
    while any(temporary.iterdir()):
        assert time.monotonic() < end, "a worker removes the folder after its parent died"
        time.sleep(0.05)
