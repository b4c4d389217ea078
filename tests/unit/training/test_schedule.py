"""The schedule against its definition at a few steps."""

import math

import pytest

from tinyllm.config import ScheduleConfig
from tinyllm.training.schedule import fit_warmup, learning_rate


def test_warmup_reaches_the_peak_and_already_learns_at_the_first_step() -> None:
    config = ScheduleConfig(num_steps=100, peak=1.0, warmup_steps=4)
    assert [learning_rate(step, config) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_cosine_matches_the_paper() -> None:
    config = ScheduleConfig(num_steps=110, peak=1.0, floor=0.1, warmup_steps=10)
    for step in (10, 35, 60, 109, 110, 500):
        progress = min(1.0, (step - 10) / 100)
        assert learning_rate(step, config) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


def test_wsd_holds_then_falls_straight() -> None:
    config = ScheduleConfig(num_steps=100, peak=2.0, warmup_steps=0, shape="wsd", decay_fraction=0.5)
    assert [learning_rate(step, config) for step in (0, 49, 75, 100)] == [2.0, 2.0, pytest.approx(1.0), 0.0]


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(ValueError, match="step is -1"):
        learning_rate(-1, ScheduleConfig())


@pytest.mark.parametrize(("num_steps", "warmup"), [(30, 29), (1, 1), (1, 0), (100, 10), (6000, 30)])
def test_a_warmup_that_ends_before_the_run_is_kept(num_steps: int, warmup: int) -> None:
    config = ScheduleConfig(num_steps=num_steps, warmup_steps=warmup)
    assert fit_warmup(config) is config
