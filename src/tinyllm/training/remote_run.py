"""A run whose directory is at an address: it is trained in a copy on this machine, which one thread uploads.

    CACHE/remote/runs/KEY/NAME   the run directory; KEY is a digest of the address
    CACHE/remote/runs/KEY/copy.json  the name of this copy in the claim on the address, and whether it is complete

A complete copy that owned the claim last is newer than the address, or equal. Any other copy is replaced by what is
there: config, newest whole checkpoint, model and logs. Rank 0 has the claim and uploads; other hosts only fetch.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinyllm import storage
from tinyllm.addresses import join, name_of, opened_address, shown, tell_address
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.machine import launcher, ranks
from tinyllm.machine.user_cache import cache_folder
from tinyllm.model_dir import MODEL
from tinyllm.progress import Note
from tinyllm.storage.remote.cache import key_of
from tinyllm.storage.remote.claims import Claim
from tinyllm.storage.remote.fetch import NEXT, download, fetch_directory, find_committed, find_object
from tinyllm.storage.remote.listing import objects_below
from tinyllm.storage.remote.upload import check_writable_address
from tinyllm.training.checkpoint import KIND
from tinyllm.training.mirror import Mirror
from tinyllm.training.run_dir import FILES

COPY_NAME = "copy.json"


def local_run(out: Path) -> Path:
    """The directory in which the run `out` is trained: `out` itself, or the copy of an address on this machine."""
    place = opened_address(out)
    if place is None:
        return storage.follow_link(out)
    run = cache_folder() / "remote" / "runs" / key_of(place) / name_of(place)
    tell_address(run, place)
    return run


@contextmanager
def opened_run(out: Path, *, resume: bool, note: Note) -> Iterator[Path]:
    """Yields the directory in which the run `out` is trained; for an address, uploads run during the block.

    Leaving the block waits for the uploads. Raises ArtifactError if another run has the address, UsageError if it
    holds something else, or a run without `resume`. Raises UploadError if the last uploads fail.
    """
    place = opened_address(out)
    if place is None:
        yield out
        return
    check_writable_address(place)
    run = local_run(out)
    if not ranks.is_first():
        ranks.once(lambda: None)
        if launcher.local_rank() == 0 and resume and not run.exists():
            _fetch_run(place, run, note)  # The first rank is on another host.
        ranks.barrier()
        yield run
        return
    with storage.exclusive(run.parent):
        claim = ranks.once(lambda: _begin(place, run, resume, note))
        ranks.barrier()
        with Mirror(run, place, claim, note):
            yield run


def _begin(place: str, run: Path, resume: bool, note: Note) -> Claim:
    """Takes the claim, and makes the copy on this machine agree with the address."""
    state = _Copy.read(run.parent)
    claim = Claim.take(place, state.owner)
    if claim.previous_owner == claim.owner and state.is_complete:
        return claim
    try:
        state.write(run.parent, is_complete=False)
        if not resume and whole_checkpoints(place, note):
            raise UsageError(
                f"{shown(place)} already holds a run",
                hint="go on with `resume=True`, or choose another `out` directory",
            )
        if run.exists():
            storage.disk.remove_tree(run)
        if resume and claim.previous_owner is not None:
            _fetch_run(place, run, note)
        state.write(run.parent, is_complete=True)
    except BaseException:
        claim.release(claim.previous_owner)
        raise
    return claim


def whole_checkpoints(place: str, note: Note) -> list[str]:
    """The addresses of the run's checkpoints that have a manifest, newest first."""
    ending = f"/{storage.MANIFEST_NAME}"
    found = objects_below(join(place, "checkpoints"), note)
    folders = [each.place.removesuffix(ending) for each in found if each.place.endswith(ending)]
    return sorted((folder for folder in folders if not folder.endswith(NEXT)), reverse=True)


def _fetch_run(place: str, run: Path, note: Note) -> None:
    """Fills `run` with the newest checkpoint that comes whole, and with the model and the logs."""
    note(f"fetching the run {shown(place)}")
    for checkpoint in whole_checkpoints(place, note):
        try:
            _fetch_committed(checkpoint, run / "checkpoints" / name_of(checkpoint), KIND, note)
        except TinyllmError as error:
            note(f"{name_of(checkpoint)} is passed over: {error}")
            continue
        break
    _fetch_committed(join(place, "model"), run / "model", MODEL, note)
    for name in FILES:
        if (found := find_object(join(place, name), note)) is not None:
            with storage.open_draft(run / name, "file") as draft:
                download(found, draft.new, note)
                storage.publish_file(draft, draft.new)


def _fetch_committed(place: str, target: Path, kind: str, note: Note) -> None:
    found = find_committed(place, note)
    if found is None:
        return
    source, content, manifest = found
    with storage.open_draft(target, kind) as draft:
        fetch_directory(source, manifest, content, draft.new, note)
        storage.disk.rename(draft.new, target)


@dataclass(frozen=True)
class _Copy:
    """The state of the copy on this machine."""

    owner: str
    is_complete: bool
    """Whether all that was at the address when the copy began is in it."""

    @classmethod
    def read(cls, folder: Path) -> "_Copy":
        """The state of the copy in `folder`; a new one if there is none."""
        path = folder / COPY_NAME
        return cls(**json.loads(path.read_bytes())) if path.exists() else cls(secrets.token_hex(16), False)

    def write(self, folder: Path, *, is_complete: bool) -> None:
        """Records the state."""
        storage.write_json(folder / COPY_NAME, {"owner": self.owner, "is_complete": is_complete})
