"""`tinyllm settings` as a person types it."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from tinyllm.config import Config

Call = Callable[..., tuple[int, str, str]]


def test_all_settings_are_listed_by_section(call_tinyllm: Call) -> None:
    code, out, err = call_tinyllm("settings")
    assert (code, err) == (0, "")
    assert "num_threads" in out
    assert "learning_rate" in out
    for name in (*Config.model_fields, "generation", "classification"):
        assert f"{name}: " in out
    assert "`" not in out


def test_a_section_is_a_table_of_name_default_unit_and_meaning(call_tinyllm: Call) -> None:
    code, out, _ = call_tinyllm("settings", "schedule")
    assert code == 0
    assert "warmup_steps    100" in out
    assert "model:" not in out
    (row,) = [line for line in out.splitlines() if line.startswith("warmup_steps")]
    assert row.split()[1:3] == ["100", "steps"]
    assert "Updates over which the rate rises linearly" in row


def test_search_lists_matching_settings_alone(call_tinyllm: Call) -> None:
    out = call_tinyllm("settings", "--search", "rate")[1]
    assert "peak" in out
    assert "hidden_size" not in out
    assert "model:" not in out
    assert call_tinyllm("settings", "model", "--search", "rope theta")[0] == 0
    code, out, err = call_tinyllm("settings", "sample", "--search", "rope")
    assert (code, out) == (2, "")
    assert err == "tinyllm: no setting in sample has 'rope' in its name, unit or meaning; use fewer or other words\n"


def test_json_has_types_too(call_tinyllm: Call) -> None:
    found = json.loads(call_tinyllm("settings", "sample", "--json")[1])["sample"]
    assert found[1] == {
        "name": "num_samples",
        "type": "integer ≥ 0",
        "default": "1",
        "unit": "samples",
        "meaning": "Samples at each evaluation; 0 = none.",
    }


def test_a_wrong_section_is_one_line_with_all_sections(call_tinyllm: Call) -> None:
    code, out, err = call_tinyllm("settings", "scheduel")
    assert (code, out) == (2, "")
    assert err.startswith("tinyllm: there is no section scheduel; did you mean schedule? the sections are model, ")
    assert err.count("\n") == 1


def test_tables_fit_into_80_columns_of_a_terminal(call_tinyllm: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from tinyllm.cli import settings

    widths: list[int] = []

    class Narrow(Console):
        def __init__(self, **options: object) -> None:
            super().__init__(highlight=False, markup=False, width=80)

        def print(self, *objects: object) -> None:  # type: ignore[override]
            with self.capture() as capture:
                super().print(*objects)
            widths.extend(len(line.rstrip()) for line in capture.get().splitlines())
            assert "…" not in capture.get(), "no name and no meaning is cut"

    monkeypatch.setattr(settings, "Console", Narrow)
    assert call_tinyllm("settings")[0] == 0
    assert len(widths) > 100
    assert max(widths) <= 80


def test_settings_load_neither_torch_nor_numba() -> None:
    program = (
        "import sys\nfrom tinyllm.cli.app import main\n"
        "try: main(['settings'])\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'numba'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
