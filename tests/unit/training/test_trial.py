"""The measurement of an update's time, with real updates."""

from pathlib import Path
from typing import Any

import pytest

from tinyllm.training.step import Updater
from tinyllm.training.trial import measure_step_seconds
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
    assert measure_step_seconds(config, num_steps=20, limit_seconds=0) > 0
    assert len(updates) == 3
