"""The claim of one run on an address: an object that names its owner, and that the owner refreshes.

It is a mark, too: an address with objects but no claim holds no run of tinyllm. Object storage has no locks that
die with their holder: a claim that was not refreshed for `STALE_SECONDS` may be taken over. Clocks of machines must
agree within a minute.
"""

import json
import socket
import time
from dataclasses import dataclass
from typing import Any

from tinyllm.addresses import join, shown
from tinyllm.errors import ArtifactError, UsageError
from tinyllm.storage.remote.drivers import file_system
from tinyllm.storage.remote.fetch import read_small
from tinyllm.storage.remote.listing import objects_below
from tinyllm.storage.remote.upload import send, upload_bytes

CLAIM_NAME = "tinyllm-run.json"
REFRESH_SECONDS, STALE_SECONDS = 30.0, 300.0
SETTLE_SECONDS = 1.0
"""Wait before a look whether another process took the same claim in the same moment."""


class LostClaimError(ArtifactError):
    """Another process took the address over, since this one did not refresh its claim in time."""


@dataclass
class Claim:
    """The claim of this process on the run at an address."""

    place: str
    owner: str
    """A name of the copy on this machine that no other copy has."""
    previous_owner: str | None
    """The owner before; None for a new run."""
    refreshed: float = 0.0
    """Time of the last refresh, as of time.monotonic."""

    @classmethod
    def take(cls, place: str, owner: str) -> "Claim":
        """Takes the claim for `owner`, whose earlier process is known to have ended.

        Raises ArtifactError if another owner holds it, UsageError if the address holds no run of tinyllm.
        """
        claim = cls(place, owner, None)
        found = _read(place)
        if found is None:
            if other := next(iter(objects_below(place)), None):
                raise UsageError(
                    f"{shown(other.place)} exists, and no run of tinyllm wrote it",
                    hint="choose another `out` directory, or move it",
                )
            if claim._create():
                return claim
            found = _read(place)
        assert found is not None
        claim.previous_owner = found["owner"]
        age = time.time() - found["time"]
        if found["held"] and found["owner"] != owner and age < STALE_SECONDS:
            raise ArtifactError(
                f"{shown(place)} is in use by a run on {found['host']}, which was there {max(0, age):.0f} s ago; "
                f"wait for its end, or {STALE_SECONDS:.0f} s if it was killed"
            )
        claim._write(held=True)
        if found["owner"] != owner:
            time.sleep(SETTLE_SECONDS)
        claim._check()
        return claim

    def refresh_if_due(self) -> None:
        """Renews the claim every `REFRESH_SECONDS`. Raises LostClaimError if another process has taken it."""
        if time.monotonic() - self.refreshed < REFRESH_SECONDS:
            return
        self._check()
        self._write(held=True)

    def release(self, owner: str | None = None) -> None:
        """Gives the claim back, to `owner` if it is named; the mark stays. Raises LostClaimError if it is lost."""
        self._check()
        self.owner = owner or self.owner
        self._write(held=False)

    def _check(self) -> None:
        found = _read(self.place)
        if found is None or found["owner"] != self.owner:
            host = "somebody removed its mark" if found is None else f"a run on {found['host']} has taken it over"
            raise LostClaimError(f"{shown(self.place)} is not this run's any more: {host}")

    def _write(self, *, held: bool) -> None:
        upload_bytes(self._content(held), join(self.place, CLAIM_NAME))
        self.refreshed = time.monotonic()

    def _create(self) -> bool:
        """Writes the claim if there is none; False if another process was faster."""
        target = join(self.place, CLAIM_NAME)
        content = self._content(held=True)

        def create() -> None:
            try:
                file_system(target).pipe_file(target, content, mode="create")
            except FileExistsError:
                return  # another process, or an earlier try whose answer was lost

        send(create, target)
        self.refreshed = time.monotonic()
        found = _read(self.place)
        return found is not None and found["owner"] == self.owner

    def _content(self, held: bool) -> bytes:
        record = {"tinyllm": "run", "owner": self.owner, "host": socket.gethostname(), "held": held}
        return json.dumps({**record, "time": time.time()}).encode()


def _read(place: str) -> dict[str, Any] | None:
    """The claim at an address; None if there is none. Raises UsageError if something else has its name."""
    target = join(place, CLAIM_NAME)
    content = read_small(target)
    if content is None:
        return None
    try:
        found = json.loads(content)
        is_claim = found["tinyllm"] == "run" and {"owner", "host", "held", "time"} <= found.keys()
    except (ValueError, TypeError, KeyError):
        is_claim = False
    if not is_claim:
        raise UsageError(f"{shown(target)} is not a mark of tinyllm", hint="choose another `out` directory")
    return dict(found)
