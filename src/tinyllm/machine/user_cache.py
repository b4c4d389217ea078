"""The user's cache folder, and the limit for what it keeps of object storage. Reads the environment, writes nothing."""

import os
import sys
from pathlib import Path

from tinyllm.errors import UsageError

LIMIT_NAME = "TINYLLM_REMOTE_CACHE_GB"
"""The environment variable that sets the limit, in units of 10^9 bytes."""
DEFAULT_LIMIT_GB = 50.0


def cache_folder() -> Path:
    """The path of tinyllm's folder in the user's cache folder; it may not exist.

    Raises UsageError if the user has no home folder and XDG_CACHE_HOME is not set.
    """
    named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    if Path(named).is_absolute():  # a relative path would depend on the working directory
        return Path(named) / "tinyllm"
    try:
        home = Path.home()
    except RuntimeError:
        raise UsageError("this user has no home folder for cached files; name one in XDG_CACHE_HOME") from None
    by_platform = {"win32": home / "AppData" / "Local", "darwin": home / "Library" / "Caches"}
    return by_platform.get(sys.platform, home / ".cache") / "tinyllm"


def remote_cache_limit_bytes() -> int:
    """The most bytes of fetched files that the cache keeps. Raises UsageError if the variable holds no such number."""
    text = os.environ.get(LIMIT_NAME, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e9:
        raise UsageError(f"{LIMIT_NAME} is {text}; it should be a number of gigabytes above 0")
    return int(limit * 1e9)
