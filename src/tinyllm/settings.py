"""One configuration from four layers: defaults < recipe < TOML file < flags; and back into a TOML file.

Every wrong key or value becomes one line that names it, says what is allowed, and suggests the nearest name.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tinyllm.config import Config, first_problem
from tinyllm.errors import ConfigError, InputError
from tinyllm.text_input import decode

Layer = Mapping[str, Mapping[str, Any]]


def build_config(layers: Iterable[tuple[str, Layer]]) -> Config:
    """The config of `layers`, each with the name that errors call it by; later ones win. Raises ConfigError."""
    merged: dict[str, dict[str, Any]] = {}
    for origin, layer in layers:
        for section, values in layer.items():
            if not isinstance(values, Mapping):
                raise ConfigError(f"{origin}: {section} stands outside a section; write it under [section]")
            _check_names(origin, section, values)
            merged.setdefault(section, {}).update({key.replace("-", "_"): value for key, value in values.items()})
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(first_problem(error)) from None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's tables. Raises ConfigError with the place of a syntax error."""
    try:
        return tomllib.loads(decode(path.read_bytes(), str(path)))
    except FileNotFoundError:
        raise ConfigError(f"--config {path} does not exist") from None
    except InputError as error:
        raise ConfigError(str(error)) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def to_toml(config: Config) -> str:
    """The resolved config as TOML, every field with its value."""
    lines = []
    for section, values in config.model_dump().items():
        lines.append(f"[{section}]")
        # TOML's basic strings, numbers and booleans are written as JSON writes them.
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines)


def _check_names(origin: str, section: str, values: Mapping[str, Any]) -> None:
    if section not in Config.model_fields:
        raise ConfigError(_unknown(origin, f"section [{section}]", section, Config.model_fields))
    kind = Config.model_fields[section].annotation
    assert isinstance(kind, type)
    assert issubclass(kind, BaseModel)
    for key in values:
        if key.replace("-", "_") not in kind.model_fields:
            raise ConfigError(_unknown(origin, f"key {section}.{key}", key, kind.model_fields, f"{section}."))


def _unknown(origin: str, what: str, name: str, known: Iterable[str], prefix: str = "") -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    advice = f"did you mean {prefix}{nearest[0]}?" if nearest else f"known are {prefix}{', '.join(sorted(known))}"
    return f"{origin}: unknown {what}; {advice}"
