"""Checks the types of arguments in calls from Python: each wrong one gives one line that names the parameter.

The command line converts its arguments itself. Limits of values are checked where the values are used.
"""

import operator
import os
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path

from tinyllm.errors import ConfigError

LONGEST_VALUE = 60
"""Characters of a wrong value that a message repeats."""


def as_path(value: object, parameter: str) -> Path:
    """`value` as a path. Raises ConfigError for anything but a text or a path."""
    if isinstance(value, str | os.PathLike):
        return Path(os.fsdecode(value))
    raise wrong_type(parameter, value, "a path")


def as_paths(value: object, parameter: str) -> list[Path]:
    """One path, or each of several. Raises ConfigError for any other value or item."""
    if isinstance(value, str | os.PathLike):
        return [as_path(value, parameter)]
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise wrong_type(parameter, value, "a path or a list of paths")
    return [as_path(item, f"{parameter}[{place}]") for place, item in enumerate(value)]


def as_text(value: object, parameter: str) -> str:
    """`value`. Raises ConfigError for anything but a text."""
    if isinstance(value, str):
        return value
    raise wrong_type(parameter, value, "a text")


def as_texts(value: object, parameter: str) -> list[str]:
    """The items of a list or tuple of texts. Raises ConfigError for any other value or item."""
    if not isinstance(value, list | tuple):
        raise wrong_type(parameter, value, "a list of texts")
    return [as_text(item, f"{parameter}[{place}]") for place, item in enumerate(value)]


def as_whole_number(value: object, parameter: str) -> int:
    """`value` as an int. Raises ConfigError for anything but a whole number."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise wrong_type(parameter, value, "a whole number") from None


def as_number(value: object, parameter: str) -> float:
    """`value` as a float. Raises ConfigError for anything but a number."""
    if isinstance(value, Real):
        return float(value)
    raise wrong_type(parameter, value, "a number")


def as_choice(value: object, parameter: str, choices: Sequence[str]) -> str:
    """`value`. Raises ConfigError for anything but one of `choices`."""
    if isinstance(value, str) and value in choices:
        return value
    found = value if isinstance(value, str) and value.isprintable() else shown(value)
    raise ConfigError(f"{parameter} is {found:.{LONGEST_VALUE}}; it can be {', '.join(choices)}", parameter=parameter)


def wrong_type(parameter: str, value: object, expected: str) -> ConfigError:
    """The error for a value of a wrong type; `expected` is what it should be."""
    return ConfigError(f"{parameter} is {shown(value)}; it should be {expected}", parameter=parameter)


def shown(value: object) -> str:
    """`value` as Python writes it, on one line, cut after `LONGEST_VALUE` characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
