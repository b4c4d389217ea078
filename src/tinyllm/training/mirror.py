"""Uploads a run directory in a background thread while training goes on.

The thread looks at the folder: a committed checkpoint or model is whole and never changes, so that the loop need not
tell it anything. The logs are uploaded before a checkpoint: they reach its step. A failed upload is tried again.
"""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tinyllm import storage
from tinyllm.addresses import join, shown
from tinyllm.errors import InputError, TinyllmError, UploadError
from tinyllm.model_dir import MODEL
from tinyllm.progress import Note
from tinyllm.storage.remote.claims import Claim, LostClaimError
from tinyllm.storage.remote.listing import objects_below
from tinyllm.storage.remote.upload import remove_directory, upload_directory, upload_file
from tinyllm.training.checkpoint import KIND, is_checkpoint_of, list_checkpoints
from tinyllm.training.run_dir import FILES

LOOK_SECONDS = 1.0
LOG_SECONDS = 30.0
"""Least time between two uploads of logs, which change at every step."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 2.0, 60.0
LAST_TRIES = 8
"""Tries at the end of a run, with growing waits: a few minutes."""


class Mirror:
    """The uploads of one run; the thread lives during the `with` block."""

    def __init__(self, run: Path, place: str, claim: Claim, note: Note) -> None:
        self._run, self._place, self._claim, self._note = run, place, claim, note
        self._files: dict[str, tuple[int, int]] = {}
        """Size and time of the uploaded version of each log."""
        self._directories: dict[str, bytes] = {}
        """The uploaded manifest of each checkpoint and of the model."""
        self._logs_due = 0.0
        self._lists_remote = True
        self._held = run.parent / ".uploads" / "held"
        """Second names of the files of the directory that is uploaded next."""
        self._end = threading.Event()
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Waits for the uploads, unless the process is to end at once. Raises UploadError if they fail."""
        if isinstance(error, SystemExit | KeyboardInterrupt):
            return
        self._end.set()
        while self._thread.is_alive():
            self._thread.join(0.2)
        if self._problem is None:
            return
        failure = UploadError(
            f"{shown(self._place)} lacks the end of the run: {self._problem}; the copy on this machine is whole",
            hint="upload it by the same call with `resume=True`",
        )
        if error is None:
            raise failure
        self._note(str(failure))

    def _work(self) -> None:
        wait, failures = FIRST_WAIT_SECONDS, 0
        while True:
            is_last = self._end.is_set()
            try:
                self._upload(is_last)
                if is_last:
                    self._claim.release()
                    self._problem = None
                    return
                wait, failures, self._problem = FIRST_WAIT_SECONDS, 0, None
                self._end.wait(LOOK_SECONDS)
            except LostClaimError as error:
                self._note(f"{error}; nothing more is uploaded")
                self._problem = error
                return
            except (TinyllmError, OSError) as error:
                if self._problem is None:
                    self._note(f"an upload failed, and is tried again while training goes on: {error}")
                self._problem = error
                failures += is_last
                if failures == LAST_TRIES:
                    return
                if is_last:
                    time.sleep(wait)
                else:
                    self._end.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _upload(self, is_last: bool) -> None:
        """Brings the address up to the state of the folder."""
        self._claim.refresh_if_due()
        checkpoints = [path for path in list_checkpoints(self._run / "checkpoints") if is_checkpoint_of(path)]
        new = [path for path in checkpoints if path.name not in self._directories][:1]
        # The checkpoint is held before the logs are uploaded, because training may remove it while they are.
        held = [(path.name, content) for path in new if (content := self._hold(path, KIND)) is not None]
        if is_last or new or time.monotonic() >= self._logs_due:
            self._upload_logs()
        for name, content in held:
            self._upload_held(name, content, join(self._place, "checkpoints", name), KIND)
        if (self._run / MODEL / storage.MANIFEST_NAME).exists():
            content = self._hold(self._run / MODEL, MODEL)
            if content is not None:
                self._upload_held(MODEL, content, join(self._place, MODEL), MODEL)
        if new or self._lists_remote:
            self._remove_old({path.name for path in checkpoints})

    def _upload_logs(self) -> None:
        for name in FILES:
            path = self._run / name
            if not path.exists():
                continue
            status = path.stat()
            version = status.st_size, status.st_mtime_ns
            if self._files.get(name) != version:
                self._upload_log(path, join(self._place, name))
                self._files[name] = version
        self._logs_due = time.monotonic() + LOG_SECONDS

    def _upload_log(self, path: Path, place: str) -> None:
        """Uploads a copy: training may append to the file meanwhile."""
        copy = self._run.parent / ".uploads" / path.name
        storage.write_file(copy, path.read_bytes())
        upload_file(copy, place)

    def _hold(self, path: Path, kind: str) -> bytes | None:
        """Gives the files of a directory second names, as training may replace or remove it; returns its manifest.

        None if this version was uploaded before, or if training has replaced or removed it.
        """
        try:
            content = (path / storage.MANIFEST_NAME).read_bytes()
            if self._directories.get(path.name) == content:
                return None
            if self._held.exists():
                storage.disk.remove_tree(self._held)
            storage.disk.make_parents(self._held)
            for name in (*storage.read_manifest(path, kind).files, storage.MANIFEST_NAME):
                storage.disk.link_or_copy(path / name, self._held / name)
        except (FileNotFoundError, InputError):
            return None  # the next look finds its successor
        return content if (self._held / storage.MANIFEST_NAME).read_bytes() == content else None

    def _upload_held(self, name: str, content: bytes, place: str, kind: str) -> None:
        upload_directory(self._held, place, kind)
        storage.disk.remove_tree(self._held)
        self._directories[name] = content

    def _remove_old(self, kept: set[str]) -> None:
        """Removes the checkpoints at the address that the folder has no more, once its newest one is there."""
        if not kept or max(kept) not in self._directories:
            return
        folder = join(self._place, "checkpoints")
        names = {found.place.removeprefix(f"{folder}/").partition("/")[0] for found in objects_below(folder)}
        for name in sorted(names - kept):
            remove_directory(join(folder, name), KIND)
            self._directories.pop(name, None)
        self._lists_remote = False
