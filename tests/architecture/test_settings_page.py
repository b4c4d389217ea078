"""docs/settings.md and the help of `tinyllm train` list the settings that the config has."""

import re
from pathlib import Path
from typing import Any

import make_settings_page
import pytest
from pydantic import BaseModel, Field

from tinyllm.cli.app import main
from tinyllm.config import Config, FinetuneConfig, SamplingConfig, Unit
from tinyllm.config.reference import describe_unit, field_docstrings, read_reference

ROOT = Path(__file__).parent.parent.parent
SECTIONS: dict[str, Any] = {name: field.annotation for name, field in Config.model_fields.items()}
PURE_NUMBERS = {"seed"}


def test_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == make_settings_page.render_page(), "docs/settings.md is not up to date; run: make settings-page"


@pytest.mark.parametrize("section", [*SECTIONS.values(), SamplingConfig, FinetuneConfig])
def test_every_field_has_a_meaning_and_every_count_a_unit(section: type[BaseModel]) -> None:
    meanings = field_docstrings(section)
    assert list(meanings) == list(section.model_fields)
    for name, field in section.model_fields.items():
        if field.annotation is int and name not in PURE_NUMBERS:
            assert describe_unit(field), f"{section.__name__}.{name} has no unit"


def test_a_row_says_type_limits_default_unit_and_meaning() -> None:
    table = make_settings_page.render_table(read_reference()["training"])
    assert "| `num_threads` | integer ≥ 0, ≤ 1024, or `auto` | `auto` | threads | CPU threads;" in table
    assert "| `tensorboard` | `true` or `false` | `false` |  | Whether metrics" in table
    assert "| `vocab_size` | integer > 0 | the shards' | tokens |" in make_settings_page.render_table(
        read_reference()["model"]
    )


def test_a_field_without_a_docstring_is_an_error() -> None:
    class Silent(BaseModel):
        width: int = Field(default=1)

    with pytest.raises(ValueError, match=r"Silent\.width has no docstring"):
        field_docstrings(Silent)


def test_help_of_train_lists_every_setting_by_section(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for name, section in SECTIONS.items():
        listed = re.search(rf"--{name}\.KEY VALUE: [^.]+\. Keys: ([\w, ]+)\.", text)
        assert listed, f"the help does not list --{name}"
        assert listed[1].split(", ") == list(section.model_fields)


def test_units_do_not_change_how_values_are_read() -> None:
    model = Config.model_validate({"model": {"vocab_size": "8", "num_kv_heads": "auto"}}).model
    assert (model.vocab_size, model.num_kv_heads) == (8, model.num_heads)
    assert Unit("heads") in type(model).model_fields["num_kv_heads"].metadata
