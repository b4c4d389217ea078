"""An evaluation copies its losses from the device once, and sums them in the order of the microbatches."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tinyllm.machine import ranks
from tinyllm.machine.signals import StopRequest
from tinyllm.training.evaluate import ROUNDS_PER_COMPARISON
from tinyllm.training.loop import Trainer
from training_runs import make_config, train


@pytest.fixture
def trainer(tiny_shards: Path, tmp_path: Path) -> Trainer:
    config = make_config(tiny_shards, 1, training={"eval_batches": 20})
    return train(tiny_shards, tmp_path / "run", config)[1]


def test_the_loss_is_the_sum_of_single_passes(trainer: Trainer) -> None:
    windows = trainer.objective.validation  # type: ignore[attr-defined]
    trainer.model.eval()
    nats = 0.0
    for batch in windows:
        nats += trainer.updater.summed_loss(torch.from_numpy(batch)).item()
    evaluation = trainer.objective.evaluate(trainer.updater, None)
    assert evaluation is not None
    assert evaluation.loss == nats / sum(batch[:, 1:].size for batch in windows)


def test_losses_are_copied_from_the_device_once(trainer: Trainer, record_copies: Callable[[], list[int]]) -> None:
    copies = record_copies()
    assert trainer.objective.evaluate(trainer.updater, None) is not None
    assert copies == [len(trainer.objective.validation)]  # type: ignore[attr-defined]


def test_a_stop_request_ends_an_evaluation_at_its_next_microbatch(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, summed_loss, passes = StopRequest(), trainer.updater.summed_loss, 0

    def stop_at_third(batch: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        if passes == 3:
            stop.signal_number = 15
        return summed_loss(batch)

    monkeypatch.setattr(trainer.updater, "summed_loss", stop_at_third)
    assert trainer.objective.evaluate(trainer.updater, stop) is None
    assert (passes, trainer.model.training) == (3, True)


def test_several_ranks_compare_stop_requests_every_few_rounds(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ranks have the microbatches of this one: 20 microbatches are 10 rounds of 2 ranks."""
    exchanges: list[object] = []

    def gather_twice(value: object) -> list[object]:
        exchanges.append(value)
        return [value, value]

    monkeypatch.setattr(ranks, "num_ranks", lambda: 2)
    monkeypatch.setattr(ranks, "gather", gather_twice)
    num_rounds = -(-len(trainer.objective.validation) // 2)  # type: ignore[attr-defined]
    assert num_rounds > ROUNDS_PER_COMPARISON
    assert trainer.objective.evaluate(trainer.updater, StopRequest()) is not None
    assert len(exchanges) == -(-num_rounds // ROUNDS_PER_COMPARISON) + 1
