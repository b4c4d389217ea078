"""The base class of all sections, units and types of fields, and the error for a wrong setting.

Values are parsed before they are checked: "128" from a flag and 128 from TOML or Python are the same value.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from tinyllm.errors import ConfigError


@dataclass(frozen=True)
class Unit:
    """Metadata of a field: the unit of its value. `docs/settings.md` prints it."""

    name: str


class Section(BaseModel):
    """Base class of all sections: immutable, with a docstring per field; unknown keys are errors."""

    # Building the validators of all sections takes 0.1 s at every start; `defer_build` builds each at first use.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_wrong_types(cls, value: object, info: ValidationInfo) -> object:
        """`value`. Raises ValueError for a boolean in place of a number, and for text that UTF-8 cannot encode."""
        assert info.field_name is not None
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation in (int, float):
            raise ValueError(f"it is {str(value).lower()}; it should be a number")
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("it is not valid UTF-8, so no file could keep it") from None
        return value


def _parse_automatic(value: object) -> object:
    """0 for None and "auto"; any other value unchanged."""
    return 0 if value is None or (isinstance(value, str) and value.strip().lower() == "auto") else value


Automatic = Annotated[int, BeforeValidator(_parse_automatic), Field(ge=0)]
"""An integer; 0, "auto" and None mean that it is chosen automatically."""
LARGEST_SIZE = 2**40
"""Larger than any size of a model. Memory is the real limit; this one keeps numbers printable."""
SHOWN_CHARACTERS = 60


def wrong_setting(error: ValidationError, known: Iterable[str] = ()) -> ConfigError:
    """The error for the first problem of a section, in one line: the field, its value, and the allowed values.

    For an unknown field it names the nearest of `known`. Its parameter is the field, such as `top_p`, `training.seed`
    or `stop[0]`, if the line begins with one.
    """
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    if not name:
        return ConfigError(reason)
    match first["type"]:
        case "extra_forbidden":
            nearest = difflib.get_close_matches(name, list(known), n=1)
            return ConfigError(f"there is no setting {name}", hint=f"did you mean {nearest[0]}?" if nearest else "")
        case "value_error":
            return ConfigError(f"{name}: {reason}", parameter=name)
        case "missing":
            return ConfigError(f"{name} is missing", parameter=name)
    reason = reason.replace("Input should", "it should")
    return ConfigError(f"{name} is {_shorten(first['input'])}; {reason}", parameter=name)


def _shorten(value: object) -> str:
    """`value` on one line, cut to `SHOWN_CHARACTERS`."""
    text = str(value)
    text = text if text and text.isprintable() else repr(text)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
