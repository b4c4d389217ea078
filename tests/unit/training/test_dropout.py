"""The seed of dropout: a pure function of (seed, step, rank). Masks of real ranks: tests/unit/machine/test_ranks.py."""

import pytest
import torch

from tinyllm.machine import ranks
from tinyllm.training.dropout import dropout_seed, seed_dropout


def test_the_first_rank_has_the_seeds_of_one_process() -> None:
    assert [dropout_seed(1337, step, 0) for step in range(3)] == [1338, 1339, 1340]


def test_no_two_updates_or_ranks_share_a_seed() -> None:
    seeds = [dropout_seed(seed, step, rank) for seed in (0, 1) for step in range(200) for rank in range(4)]
    shared = len(seeds) - len(set(seeds))
    assert shared == 199, "rank 0 of two runs whose seeds differ by 1 has the same seeds one step apart"
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert dropout_seed(3, 5, 2) == dropout_seed(3, 5, 2)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_the_generator_of_a_rank_takes_its_seed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = []
    for rank in (0, 1, 1):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        seed_dropout(seed, 7)
        draws.append(torch.rand(8))
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(draws[1], draws[2])
