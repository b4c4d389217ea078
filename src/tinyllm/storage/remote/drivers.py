"""Opens the driver of an address and repeats its calls: the only module that imports fsspec.

Drivers find credentials by themselves: in their environment variables, files and services. No credential is read,
passed on or printed here.
"""

import logging
import random
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tinyllm.addresses import SCHEMES, scheme_of, shown
from tinyllm.errors import DownloadError, InputError, TinyllmError, UsageError
from tinyllm.progress import SILENT, Note

T = TypeVar("T")
TRIES = 6
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 30.0
"""Wait before the second try of a call, doubled after each, and its limit."""
CONNECT_SECONDS, READ_SECONDS = 10, 30
"""Longest waits of a driver for a connection, and for the next bytes."""
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"total_max_attempts": 2, "mode": "standard"},
        }
    },
}
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or ~/.aws",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or gcloud auth application-default login",
    "hf": "HF_TOKEN or hf auth login",
}
"""Scheme -> the places where its driver looks for credentials."""
CUT_ANSWERS = ("LengthError", "EncodingError")
"""Endings of aiohttp's errors for a cut answer, whose status is that of a wrong request."""
WRONG_SETTINGS = ("ProfileNotFound", "ParamValidationError", "InvalidURL", "InvalidEndpointURLError")
"""Errors of drivers for an address or a setting."""
_ABSENT_STATUS = (404, 410)
_REFUSED_STATUS = range(400, 500)
_TEMPORARY_STATUS = (408, 425, 429)


def file_system(place: str) -> Any:
    """fsspec's file system for an address. Raises UsageError with the extra to install if its driver is missing."""
    import fsspec

    logging.getLogger("asyncio").addFilter(_is_news)
    scheme = scheme_of(place)
    try:
        return fsspec.filesystem(scheme, use_listings_cache=False, **OPTIONS.get(scheme, {}))
    except ImportError as error:
        raise UsageError(
            f"{shown(place)}: {scheme}:// needs a driver that is not installed ({error}); "
            f"install it with: pip install 'tinyllm[{SCHEMES[scheme]}]'"
        ) from None


def _is_news(record: logging.LogRecord) -> bool:
    """False for asyncio's traceback of a request whose connection was cut: the call that made it fails as well."""
    return not record.getMessage().startswith("Task exception was never retrieved")


def repeat(call: Callable[[], T], place: str, *, note: Note = SILENT.note) -> T:
    """The result of `call`, which is repeated with growing waits if the network or the server fails.

    `note` gets one line before the second try. Raises InputError for an object that does not exist or may not be read,
    DownloadError after `TRIES` failures. A TinyllmError passes at once.
    """
    wait = FIRST_WAIT_SECONDS
    for number in range(1, TRIES + 1):
        try:
            return call()
        except TinyllmError:
            raise
        except Exception as error:
            cause = hidden_cause(error) or error
            if (final := _final(cause, place)) is not None:
                raise final from None
            if number == TRIES:
                raise DownloadError(
                    f"{shown(place)} failed {TRIES} times: {reason_of(cause)}; try again later"
                ) from error
            if number == 1:
                note(f"{shown(place)}: {reason_of(cause)}; trying again")
        time.sleep(wait * random.uniform(0.5, 1))
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
    raise AssertionError("unreachable")


def hidden_cause(error: Exception) -> Exception | None:
    """The error for which the driver of the web says that a file does not exist; None if it says so for a status 404.

    It says so for every failed request, also without any connection.
    """
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or isinstance(cause, FileNotFoundError):
        return None
    is_of_web = isinstance(cause, TimeoutError) or type(cause).__module__.partition(".")[0] == "aiohttp"
    return cause if isinstance(cause, Exception) and is_of_web and _status(cause) not in _ABSENT_STATUS else None


def reason_of(error: BaseException) -> str:
    """An error of a driver in one line, without queries of addresses, which may hold signatures."""
    text = re.sub(r"\?[^\s'\")]*", "", " ".join(str(error).split()))
    return f"{text[:300] or 'no reason given'} ({type(error).__name__})"


def is_refusal(error: Exception) -> bool:
    """Whether a server answered that it does not serve the request, so that another try gets the same answer."""
    status = _status(error)
    is_cut = type(error).__name__.endswith(CUT_ANSWERS)
    return status in _REFUSED_STATUS and status not in _TEMPORARY_STATUS and not is_cut


def _status(error: Exception) -> int | None:
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _final(error: Exception, place: str) -> TinyllmError | None:
    """The error to raise at once, or None for one that another try may overcome."""
    status, name = _status(error), type(error).__name__
    if name.endswith(CUT_ANSWERS):
        return None
    if isinstance(error, FileNotFoundError):
        return InputError(f"{shown(place)} does not exist")
    if name == "FileExpired":
        return InputError(f"{shown(place)} changed while it was read; start again")
    if isinstance(error, PermissionError) or "Credential" in name or status in (401, 403):
        found = CREDENTIALS.get(scheme_of(place))
        hint = f"; credentials come from {found}" if found else ""
        return InputError(f"{shown(place)} may not be used: {reason_of(error)}{hint}")
    if is_refusal(error):
        return InputError(f"{shown(place)} is refused: {reason_of(error)}")
    if name in WRONG_SETTINGS or (isinstance(error, ValueError) and str(error).startswith("Invalid endpoint")):
        return UsageError(f"{shown(place)} cannot be opened: {reason_of(error)}; check the address and its settings")
    return None
