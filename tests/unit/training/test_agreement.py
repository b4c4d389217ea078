"""Settings of all ranks, compared before a run. Two real processes are in tests/unit/machine/test_ranks.py."""

from pathlib import Path
from typing import Any

import pytest

from tinyllm.errors import MismatchError
from tinyllm.machine import ranks
from tinyllm.training.agreement import check_ranks_agree
from training_runs import make_config


@pytest.mark.parametrize(
    ("sections", "shards", "message"),
    [
        ({}, "b", "rank 1 has shards b, and rank 0 has a; "),
        ({"optimizer": {"weight_decay": 0.3}}, "a", "rank 1 has optimizer.weight_decay 0.3, and rank 0 has 0.1; "),
        ({"model": {"num_layers": 3}}, "a", "rank 1 has model.num_layers 3, and rank 0 has 2; "),
        ({"training": {"device": "cuda:1", "num_threads": 2}}, "a", ""),
    ],
)
def test_the_first_setting_that_differs_is_named(
    sections: dict[str, Any], shards: str, message: str, tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def gather_and_keep(value: Any) -> list[Any]:
        sent.append(value)
        return [value, value]

    monkeypatch.setattr(ranks, "num_ranks", lambda: 2)
    monkeypatch.setattr(ranks, "gather", gather_and_keep)
    check_ranks_agree(make_config(tiny_shards, 5, **sections), shards)
    monkeypatch.setattr(ranks, "gather", lambda value: [value, sent[0]])
    if not message:
        check_ranks_agree(make_config(tiny_shards, 5), "a")
        return
    with pytest.raises(MismatchError, match=message):
        check_ranks_agree(make_config(tiny_shards, 5), "a")
