"""A run keeps the order of windows that its checkpoints name; without a name it is the order of older versions."""

import functools
from pathlib import Path
from typing import Any

import pytest

from tinyllm.errors import MismatchError
from tinyllm.shards.batches import WindowOrder
from tinyllm.shards.order import FEISTEL, PHILOX
from tinyllm.training.checkpoint import checkpoint_path, read_state
from tinyllm.training.next_token import NextToken
from training_runs import losses, make_config, train

NUM_STEPS = 6


def saved_order(run: Path, step: int) -> Any:
    return read_state(checkpoint_path(run / "checkpoints", step)).inputs.get("order")


def behave_like(patch: pytest.MonkeyPatch, permutation: str, **recorded: str) -> None:
    """Runs visit their windows in another order, and their checkpoints have `recorded` in place of its name."""
    inputs = NextToken.inputs
    patch.setattr(NextToken, "inputs", lambda self: _without_order(inputs(self)) | recorded)
    patch.setattr("tinyllm.training.next_token.WindowOrder", functools.partial(WindowOrder, permutation=permutation))


def _without_order(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "order"}


@pytest.mark.parametrize("align_documents", [False, True])
def test_an_older_run_has_the_losses_of_one_that_never_stopped(
    align_documents: bool, tiny_shards: Path, tmp_path: Path
) -> None:
    training = {"align_documents": align_documents}
    config = make_config(tiny_shards, NUM_STEPS, training=training)
    with pytest.MonkeyPatch.context() as patch:
        behave_like(patch, PHILOX)
        train(tiny_shards, tmp_path / "whole", config)
        in_no_time = make_config(tiny_shards, NUM_STEPS, training=training | {"max_minutes": 1e-9})
        outcome, _ = train(tiny_shards, tmp_path / "run", in_no_time)
    assert (outcome.state.step, saved_order(tmp_path / "run", 1)) == (1, None)
    train(tiny_shards, tmp_path / "run", config, resume=True)
    train(tiny_shards, tmp_path / "new", config)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole") != losses(tmp_path / "new")
    assert [saved_order(tmp_path / name, NUM_STEPS) for name in ("run", "new")] == [PHILOX, FEISTEL]


def test_an_unknown_order_is_refused_by_its_name(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        behave_like(patch, FEISTEL, order="spiral")
        train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 3))
    with pytest.raises(MismatchError, match=r"in the order 'spiral', and this version knows feistel and philox"):
        train(tiny_shards, tmp_path / "run", make_config(tiny_shards, NUM_STEPS), resume=True)
