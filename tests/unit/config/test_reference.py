"""The reference of settings has every field, and finds settings by words."""

from typing import Any

import pytest

from tinyllm.config import Config, FinetuneConfig, SamplingConfig
from tinyllm.config.reference import find_section, read_reference
from tinyllm.errors import UsageError

OTHERS = {"generation": SamplingConfig, "classification": FinetuneConfig}


def test_every_field_of_every_section_is_described() -> None:
    reference = read_reference()
    assert list(reference) == [*Config.model_fields, "generation", "classification"]
    for name, section in reference.items():
        model: Any = Config.model_fields[name].annotation if name in Config.model_fields else OTHERS[name]
        assert [setting.name for setting in section.settings] == list(model.model_fields)
        assert section.meaning
        assert all(setting.meaning and setting.default and setting.type for setting in section.settings)


def test_search_finds_beginnings_of_words_in_names_units_and_meanings() -> None:
    def found(words: str) -> set[str]:
        return {
            f"{section.name}.{setting.name}" for section in read_reference().values()
            for setting in section.select(words).settings
        }  # fmt: skip

    assert {"schedule.peak", "classification.learning_rate"} <= found("rate")
    assert "generation.max_new_tokens" not in found("rate"), "`generate` does not begin with it"
    assert found("RATE peak") == {"schedule.peak", "schedule.warmup_steps"}
    assert "training.max_minutes" in found("minutes")
    assert found("schedule.peak") == {"schedule.peak"}
    assert found("nothing of the kind") == set()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scheduel", r"there is no section scheduel; did you mean schedule\? the sections are model, training, .*"),
        ("[Model]", r"there is no section \[Model\]; did you mean model\? .*"),
        ("xyz", "there is no section xyz; the sections are model, .*, generation, classification"),
    ],
)
def test_an_unknown_section_is_an_error_with_all_names(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        find_section(name)
