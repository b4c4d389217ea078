"""The reference of all settings: section, name, type, default, unit and meaning, read from the fields themselves.

`tinyllm settings` prints it, and `tools/make_settings_page.py` writes docs/settings.md from it. Texts have code in
backticks, as in Markdown.
"""

import ast
import difflib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tinyllm.config.fields import LARGEST_SIZE, Automatic, Unit
from tinyllm.config.sections import Config, FinetuneConfig, SamplingConfig, TokenBias
from tinyllm.errors import UsageError

FROM_SHARDS = {"vocab_size"}


@dataclass(frozen=True)
class Setting:
    """One setting, described."""

    name: str
    type: str
    """The type with its limits, such as `integer > 0`."""
    default: str
    """The default as the command line takes it."""
    unit: str
    """The unit; empty for a pure number or a text."""
    meaning: str


@dataclass(frozen=True)
class SectionReference:
    """One section with its settings."""

    name: str
    meaning: str
    settings: tuple[Setting, ...]

    def select(self, words: str) -> "SectionReference":
        """This section with the settings in which each of `words` begins a word of name, unit or meaning."""
        kept = tuple(setting for setting in self.settings if _has_words(self.name, setting, words))
        return SectionReference(self.name, self.meaning, kept)


def read_reference() -> dict[str, SectionReference]:
    """Every section by name: those of a run's config, then `generation` and `classification`."""
    run = {name: cast(type[BaseModel], field.annotation) for name, field in Config.model_fields.items()}
    sections: dict[str, type[BaseModel]] = {**run, "generation": SamplingConfig, "classification": FinetuneConfig}
    return {name: _describe(name, section) for name, section in sections.items()}


def find_section(name: str) -> SectionReference:
    """The section `name`. Raises UsageError with all names and the nearest one if there is none."""
    known = read_reference()
    if name not in known:
        near = difflib.get_close_matches(name.strip("[]").lower(), known, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no section {name}; {advice}the sections are {', '.join(known)}")
    return known[name]


def field_docstrings(section: type[BaseModel]) -> dict[str, str]:
    """The docstring after each field in the source of `section`, on one line. Raises ValueError if one is missing."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, following in zip_longest(definition.body, definition.body[1:]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[field.target.id] = " ".join(text.split())
                case _:
                    raise ValueError(f"{section.__name__}.{field.target.id} has no docstring; write its meaning there")
    return found


def describe_unit(field: FieldInfo) -> str:
    """The unit of a field, or nothing for a pure number or text."""
    return next((item.name for item in field.metadata if isinstance(item, Unit)), "")


def show_value(value: object) -> str:
    """A value in TOML's form, as code."""
    return _code(json.dumps(value, ensure_ascii=False))


def _code(text: str) -> str:
    return f"`{text}`"


def _describe(name: str, section: type[BaseModel]) -> SectionReference:
    meanings = field_docstrings(section)
    settings = tuple(
        Setting(key, _type_of(field), _default_of(key, field), describe_unit(field), meanings[key])
        for key, field in section.model_fields.items()
    )
    return SectionReference(name, inspect.getdoc(section) or "", settings)


def _has_words(section: str, setting: Setting, words: str) -> bool:
    text = f"{section} {section}.{setting.name} {setting.unit} {setting.meaning}".lower()
    return all(re.search(rf"(?<![a-z]){re.escape(word)}", text) for word in words.lower().split())


def _type_of(field: FieldInfo) -> str:
    """The type of a field with its limits, such as "integer > 0"."""
    if get_origin(field.annotation) is Literal:
        return " or ".join(map(_code, get_args(field.annotation)))
    if field.annotation == tuple[TokenBias, ...]:
        return "pairs of a token id and a number ≥ -100, ≤ 100"
    names: dict[Any, str] = {int: "integer", float: "number", bool: f"{_code('true')} or {_code('false')}", str: "text"}
    limits = sorted((limit for rule in field.metadata for limit in _limit_of(rule)), key=lambda text: text[0] in "<≤")
    kind = names.get(field.annotation, "list of texts") + (f" {', '.join(limits)}" if limits else "")
    return f"{kind}, or {_code('auto')}" if _is_automatic(field) else kind


def _limit_of(rule: object) -> Iterator[str]:
    """The limit that one item of a field's metadata sets; nothing for other items and for `LARGEST_SIZE`."""
    match rule:
        case Gt(gt=limit):
            yield f"> {limit}"
        case Ge(ge=limit):
            yield f"≥ {limit}"
        case Lt(lt=limit):
            yield f"< {'2^63' if limit == 2**63 else limit}"
        case Le(le=limit) if limit != LARGEST_SIZE:
            yield f"≤ {limit}"


def _default_of(name: str, field: FieldInfo) -> str:
    """The default as the command line takes it."""
    if field.default is PydanticUndefined:
        assert name in FROM_SHARDS, f"{name} has no default"
        return "the shards'"
    if field.default == ():
        return "none"
    return _code("auto") if _is_automatic(field) and field.default == 0 else show_value(field.default)


def _is_automatic(field: FieldInfo) -> bool:
    """Whether `auto` is a value of this integer field."""
    (parse, *_) = Automatic.__metadata__  # type: ignore[attr-defined]
    return parse in field.metadata
