"""Writes docs/settings.md: every setting of `config` with its name, type, default, unit and meaning.

    python tools/make_settings_page.py

The names, types, limits, defaults and units come from the fields; the meanings are the fields' docstrings.
"""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tinyllm.config import LARGEST_SIZE, Automatic, Config, FinetuneConfig, SamplingConfig, Unit
from tinyllm.config.layers import DEFAULT_RECIPE
from tinyllm.config.recipes import read_recipe

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
INTRODUCTION = f"""\
# Settings

<!-- `make settings-page` writes this file from the fields of the config. Do not edit it by hand. -->

A setting of a run is a key of a section, in four places:

- on the command line: `tinyllm train --data shards --out runs/first --model.num_layers 4`
- in a TOML file for `--config`: `num_layers = 4` under `[model]`
- in a recipe: see [recipes.md](recipes.md)
- in `RUN/config.toml`, which holds the resolved settings of a run, without `max_minutes` and `eval_only`

Flags override the file, the file overrides the recipe, and the recipe overrides the defaults below.
Without `--recipe`, a new run starts from the recipe `{DEFAULT_RECIPE}`.
The shards give `model.vocab_size`.
`auto` means that tinyllm chooses the value.
"""
OTHERS: dict[str, tuple[type[BaseModel], str]] = {
    "Generation": (SamplingConfig, "Parameters of `generate` in Python, and flags of `tinyllm generate`."),
    "Classification": (
        FinetuneConfig,
        "Defaults of `run_llama.py --option finetune`; `tinyllm classify train --help` shows its own.",
    ),
}
FROM_SHARDS = {"vocab_size"}


def main() -> None:
    """Writes the page."""
    PAGE.write_text(render_page(), encoding="utf-8", newline="\n")
    sys.stdout.write(f"wrote {PAGE}\n")


def render_page() -> str:
    """The whole page as Markdown."""
    parts = [INTRODUCTION]
    for name, section in sections().items():
        parts.append(f"## `[{name}]`\n\n{inspect.getdoc(section)}\n\n{render_table(section)}")
    for title, (section, use) in OTHERS.items():
        parts.append(f"## {title}\n\n{inspect.getdoc(section)}\n{use}\n\n{render_table(section)}")
    parts.append(f"## What the recipe `{DEFAULT_RECIPE}` changes\n\n{render_recipe(DEFAULT_RECIPE)}")
    return "\n".join(parts)


def sections() -> dict[str, type[BaseModel]]:
    """The sections of a run's config by name."""
    return {name: cast(type[BaseModel], field.annotation) for name, field in Config.model_fields.items()}


def render_table(section: type[BaseModel]) -> str:
    """A Markdown table with one row per field of `section`."""
    meanings = field_docstrings(section)
    rows = ["| name | type | default | unit | meaning |", "| --- | --- | --- | --- | --- |"]
    for name, field in section.model_fields.items():
        cells = [f"`{name}`", describe_type(field), describe_default(name, field), describe_unit(field), meanings[name]]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def render_recipe(name: str) -> str:
    """A list of the settings of a recipe that differ from the defaults."""
    lines = []
    for section, values in read_recipe(name).items():
        fields = sections()[section].model_fields
        changed = [f"`{key}` {show(value)}" for key, value in values.items() if fields[key].default != value]
        lines += [f"- `[{section}]`: {', '.join(changed)}"] if changed else []
    return "\n".join(lines) + "\n"


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


def describe_type(field: FieldInfo) -> str:
    """The type of a field with its limits, such as "integer > 0"."""
    if get_origin(field.annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(field.annotation))
    names: dict[Any, str] = {int: "integer", float: "number", bool: "`true` or `false`", str: "text"}
    limits = sorted(
        (limit for rule in field.metadata for limit in describe_limit(rule)), key=lambda text: text[0] in "<≤"
    )
    kind = names.get(field.annotation, "list of texts") + (f" {', '.join(limits)}" if limits else "")
    return f"{kind}, or `auto`" if is_automatic(field) else kind


def describe_limit(rule: object) -> Iterator[str]:
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


def describe_default(name: str, field: FieldInfo) -> str:
    """The default as the command line takes it."""
    if field.default is PydanticUndefined:
        assert name in FROM_SHARDS, f"{name} has no default"
        return "the shards'"
    if field.default == ():
        return "none"
    return "`auto`" if is_automatic(field) and field.default == 0 else show(field.default)


def describe_unit(field: FieldInfo) -> str:
    """The unit of a field, or nothing for a pure number or text."""
    return next((item.name for item in field.metadata if isinstance(item, Unit)), "")


def is_automatic(field: FieldInfo) -> bool:
    """Whether `auto` is a value of this integer field."""
    (parse, *_) = Automatic.__metadata__  # type: ignore[attr-defined]
    return parse in field.metadata


def show(value: object) -> str:
    """A value in TOML's form."""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    main()
