"""Writes docs/settings.md: every setting of `config` with its name, type, default, unit and meaning.

    python tools/make_settings_page.py

The texts come from `tinyllm.config.reference`, as those of `tinyllm settings` do.
"""

import sys
from pathlib import Path

from tinyllm.cli.settings import USES
from tinyllm.config import Config
from tinyllm.config.layers import DEFAULT_RECIPE
from tinyllm.config.recipes import read_recipe
from tinyllm.config.reference import SectionReference, read_reference, show_value

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
`tinyllm settings` prints these tables; `tinyllm settings --search rate` finds settings by a word.
"""


def main() -> None:
    """Writes the page."""
    PAGE.write_text(render_page(), encoding="utf-8", newline="\n")
    sys.stdout.write(f"wrote {PAGE}\n")


def render_page() -> str:
    """The whole page as Markdown."""
    parts = [INTRODUCTION]
    for name, section in read_reference().items():
        in_run = name in Config.model_fields
        title, use = (f"`[{name}]`", "") if in_run else (name.capitalize(), f"\n{USES[name]}")
        parts.append(f"## {title}\n\n{section.meaning}{use}\n\n{render_table(section)}")
    parts.append(f"## What the recipe `{DEFAULT_RECIPE}` changes\n\n{render_recipe(DEFAULT_RECIPE)}")
    return "\n".join(parts)


def render_table(section: SectionReference) -> str:
    """A Markdown table with one row per setting of `section`."""
    rows = ["| name | type | default | unit | meaning |", "| --- | --- | --- | --- | --- |"]
    for setting in section.settings:
        cells = [f"`{setting.name}`", setting.type, setting.default, setting.unit, setting.meaning]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def render_recipe(name: str) -> str:
    """A list of the settings of a recipe that differ from the defaults."""
    lines = []
    for section, values in read_recipe(name).items():
        defaults = {setting.name: setting.default for setting in read_reference()[section].settings}
        changed = [
            f"`{key}` {show_value(value)}" for key, value in values.items() if defaults[key] != show_value(value)
        ]
        lines += [f"- `[{section}]`: {', '.join(changed)}"] if changed else []
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
