"""Recognises addresses of object storage, such as `s3://bucket/model`, and keeps secrets out of messages.

An address travels as a text or as a `Path`, which collapses `s3://bucket` to `s3:/bucket`: both are recognised. Nothing
here opens a connection; `storage.remote` does.
"""

import re
from pathlib import Path, PurePath
from urllib.parse import urlsplit

from tinyllm.errors import UsageError

SCHEMES = {"s3": "s3", "gs": "gs", "hf": "hf", "https": "https", "http": "https"}
"""Scheme of an address -> the extra of tinyllm that installs its driver."""
NEAR_SCHEMES = {"gcs": "gs", "s3a": "s3", "s3n": "s3", "huggingface": "hf"}
"""Scheme of another tool -> the scheme here."""
_addresses: dict[str, str] = {}
"""Path of a copy on this machine -> its address, for messages."""
_COLLAPSED = re.compile(r"\b(s3|gs|hf|https?):/(?=[^/\s])")
"""The beginning of an address that was a path."""
_ADDRESS = re.compile(r"(s3|gs|hf|https?):[/\\]+(.*)", re.DOTALL)
_ANY_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?:[/\\]+(.*))?", re.DOTALL)
"""A text that looks like an address; a drive of Windows has one letter."""


def address(path: str | PurePath) -> str | None:
    """`path` as an address with its scheme, `//` and no `/` at the end; None for a path of this machine.

    >>> address("s3:/bucket/model/")
    's3://bucket/model'
    >>> address("models/s3")

    Raises UsageError for an address with a user or a password in it, which messages and logs would repeat.
    """
    match = _ADDRESS.fullmatch(str(path))
    if match is None:
        return None
    scheme, rest = match[1], match[2].replace("\\", "/").rstrip("/")
    if scheme.startswith("http") and "@" in rest.partition("/")[0]:
        raise UsageError(f"an {scheme} address with a user or a password is not opened; leave them out")
    return f"{scheme}://{rest}"


def opened_address(path: str | PurePath) -> str | None:
    """`address(path)` for a path that is opened or written. A folder with a name such as `notes:` is no address.

    Raises UsageError for an address that is incomplete or has a scheme that tinyllm does not open. Taken for a path, it
    would be a folder of this machine, which a user may never find.
    """
    place, text = address(path), str(path)
    known = place is not None and bool(place.partition("://")[2])
    looks = None if known else _ANY_ADDRESS.fullmatch(text)
    if looks is None or Path(f"{looks[1]}:").exists():
        return place
    scheme, rest = looks[1], (looks[2] or "").replace("\\", "/").lstrip("/")
    near = NEAR_SCHEMES.get(scheme.lower(), scheme.lower())
    if scheme in SCHEMES:
        hint = "it names nothing to open"
    elif near in SCHEMES:
        hint = f"write {near}://{rest}"
    elif near == "file":
        hint = "leave file:// out"
    else:
        hint = "addresses begin with s3://, gs://, hf:// or https://"
    raise UsageError(f"{scheme}://{rest} is no address that tinyllm opens; {hint}")


def is_address(path: str | PurePath) -> bool:
    """Whether `path` is an address of object storage or of the web."""
    return _ADDRESS.fullmatch(str(path)) is not None


def scheme_of(place: str) -> str:
    """The scheme of an address: s3, gs, hf, https or http."""
    return place.partition(":")[0]


def join(place: str, *names: str) -> str:
    """The address of an object below `place`."""
    return "/".join((place, *(name for name in names if name)))


def name_of(place: str) -> str:
    """The last name of an address, without the query of a web address."""
    path = urlsplit(place).path if scheme_of(place).startswith("http") else place.partition("://")[2]
    return path.rstrip("/").rpartition("/")[2] or place.partition("://")[2].partition("/")[0]


def shown(path: str | PurePath) -> str:
    """`path` for messages and records: an address without its query, which may hold a signature; a path as it is."""
    if not is_address(path):
        return str(path)
    place = address(path)
    assert place is not None
    return place.partition("?")[0] if scheme_of(place).startswith("http") else place


def tell_address(path: Path, place: str) -> None:
    """Lets messages name the address `place` instead of its copy at `path`."""
    _addresses[str(path)] = shown(place)


def with_addresses(text: str) -> str:
    """`text` with the address of each copy on this machine in place of the copy's path, and each address with `//`."""
    for path, place in sorted(_addresses.items(), key=lambda pair: len(pair[0]), reverse=True):
        text = text.replace(path, place)
    return _COLLAPSED.sub(r"\1://", text)


def refuse_address(path: Path) -> None:
    """Raises UsageError if `path` is an address: what is written there is made on this machine first."""
    if opened_address(path) is not None:
        raise UsageError(f"{shown(path)} is an address, and this output needs a path of this machine")
