"""The ranges of the sections and the relations between them."""

import pytest
from pydantic import ValidationError

from tinyllm.config import Config, SamplingConfig, ScheduleConfig


@pytest.mark.parametrize("settings", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"temperature": float("nan")}])
def test_sampling_ranges(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SamplingConfig(**settings)  # type: ignore[arg-type]


def test_sections_fit_each_other() -> None:
    with pytest.raises(ValidationError, match="sequence_length 512 is longer than model.context_length 256"):
        Config.model_validate({"model": {"vocab_size": 8}, "training": {"sequence_length": 512}})
    with pytest.raises(ValidationError, match=r"floor 0.1 is above peak 0.001"):
        ScheduleConfig(peak=1e-3, floor=0.1)
