"""The measurement of an update's time, with real updates."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tinyllm.training import time_limit
from tinyllm.training.step import Updater
from tinyllm.training.trial import measure_update_seconds
from training_runs import make_config


def test_a_measurement_without_time_still_measures_one_update(
    monkeypatch: pytest.MonkeyPatch, tiny_shards: Path
) -> None:
    updates: list[int] = []
    update = Updater.update

    def count(self: Updater, *rest: Any) -> Any:
        updates.append(1)
        return update(self, *rest)

    monkeypatch.setattr(Updater, "update", count)
    config = make_config(tiny_shards)
    assert measure_update_seconds(config, num_updates=20, limit_seconds=0) > 0
    assert len(updates) == 3


def test_a_shortened_measurement_leaves_the_random_numbers_alone(tiny_shards: Path) -> None:
    config = make_config(tiny_shards, training={"dtype": "bfloat16", "attention": "explicit"})
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert measure_update_seconds(config, torch.device("cpu"), shortened=True) > 0
    assert torch.equal(torch.rand(4), expected)


def test_the_number_of_updates_is_fitted_to_the_time(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    config = make_config(tiny_shards, 1000)
    monkeypatch.setattr(time_limit, "measure_update_seconds", lambda config, **_: 0.5)
    fitted = time_limit.fit_to_time(config, 1.0, lines.append)
    assert 110 <= fitted.schedule.num_steps <= 120
    assert lines[-1].startswith("an update takes 0.50 s here: 1")
    assert time_limit.fit_to_time(config, 100.0).schedule == config.schedule
