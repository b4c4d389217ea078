"""`tinyllm settings`: lists every setting with its default, unit and meaning."""

import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from tinyllm.cli.console import show, show_json
from tinyllm.config.reference import SectionReference, find_section, read_reference
from tinyllm.errors import UsageError

RUN_USE = "Flags `--{name}.KEY VALUE` of `tinyllm train`, and `[{name}]` in a file for its `--config`."
USES = {
    "generation": "Parameters of `generate` in Python, and flags of `tinyllm generate`.",
    "classification": "Defaults of `run_llama.py --option finetune`; `tinyllm classify train --help` shows its own.",
}
"""The places where the settings of a section are given."""


def settings(
    section: Annotated[str | None, Parameter(help="One section, such as model or generation; default: all.")] = None,
    /,
    *,
    search: Annotated[
        str | None, Parameter(help="List the settings whose name, unit or meaning has these words.")
    ] = None,
    as_json: Annotated[
        bool, Parameter(name="--json", help="Write the same as JSON, with types.", negative="", show_default=False)
    ] = False,
) -> None:
    """List settings with default, unit and meaning.

    docs/settings.md has the same tables, with types and limits.

    For example:

      tinyllm settings
      tinyllm settings schedule
      tinyllm settings --search rate
      tinyllm settings model --json
    """
    found = [find_section(section)] if section is not None else list(read_reference().values())
    if search is not None:
        found = [kept for each in found if (kept := each.select(search)).settings]
    if not found:
        where = "" if section is None else f" in {section}"
        raise UsageError(f"no setting{where} has {search!r} in its name, unit or meaning; use fewer or other words")
    if as_json:
        show_json({each.name: [_plain(asdict(setting)) for setting in each.settings] for each in found})
        return
    for number, each in enumerate(found):
        show(f"{chr(10) * bool(number)}{each.name}: {_without_marks(each.meaning)}")
        show(_without_marks(USES.get(each.name, RUN_USE.format(name=each.name))))
        _print_table(each)


def _print_table(section: SectionReference) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("name", "default", "unit"):
        table.add_column(title, no_wrap=True)
    table.add_column("meaning", overflow="fold")
    for setting in section.settings:
        table.add_row(*map(_without_marks, (setting.name, setting.default, setting.unit, setting.meaning)))
    # If stdout is no terminal, meanings are not folded: a line of `grep` is a whole setting.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 500).print(table)


def _plain(setting: dict[str, str]) -> dict[str, str]:
    return {key: _without_marks(text) for key, text in setting.items()}


def _without_marks(text: str) -> str:
    """`text` without Markdown's backticks."""
    return text.replace("`", "")
