"""Work that is done once a run: with one process, with a fake group of two, and with two real processes."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tinyllm import storage
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.machine import ranks
from training_runs import Listener, losses, make_config, train

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
RANKED = {"accumulation_steps": 2, "eval_interval": 4}


def test_one_process_is_the_first_of_one_rank() -> None:
    assert (ranks.rank(), ranks.num_ranks(), ranks.is_first()) == (0, 1, True)
    value = object()
    assert ranks.once(lambda: value) is value
    assert ranks.broadcast(value) is value
    total = torch.ones(2)
    ranks.add_up([total])
    ranks.barrier()
    assert total.tolist() == [1, 1]


def test_the_module_does_not_import_torch() -> None:
    program = (
        "import sys; from tinyllm.machine import ranks; assert ranks.is_first(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


class Group:
    """Stands for `torch.distributed` on one of two ranks; `messages` goes from the first to the second."""

    def __init__(self, rank: int, messages: list[Any]) -> None:
        self.rank, self.messages = rank, messages

    def get_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return 2

    def broadcast_object_list(self, values: list[Any], src: int) -> None:
        assert src == 0
        if self.rank == 0:
            self.messages.append(values[0])
        else:
            values[0] = self.messages.pop(0)


def test_the_second_rank_gets_the_result_and_calls_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[Any] = []
    monkeypatch.setattr(ranks, "_group", lambda: Group(0, messages))
    assert ranks.once(lambda: "saved") == "saved"
    assert ranks.broadcast(7) == 7
    monkeypatch.setattr(ranks, "_group", lambda: Group(1, messages))
    assert not ranks.is_first()
    assert ranks.once(lambda: pytest.fail("called on the second rank")) == "saved"
    assert ranks.broadcast(None) == 7
    assert messages == []


def test_an_error_of_the_first_rank_ends_the_others_too(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[Any] = []

    def fail() -> None:
        raise UsageError("the disk is full")

    monkeypatch.setattr(ranks, "_group", lambda: Group(0, messages))
    with pytest.raises(UsageError, match="the disk is full"):
        ranks.once(fail)
    monkeypatch.setattr(ranks, "_group", lambda: Group(1, messages))
    with pytest.raises(TinyllmError, match="the first rank failed: UsageError: the disk is full"):
        ranks.once(fail)


def train_on_rank(rank: int, shards: Path, run: Path, end: Path) -> None:
    """Trains as one of two ranks; a rank writes its final weights to `end`, and how many events it told."""
    import torch.distributed as distributed

    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=(end / "store").as_uri(), rank=rank, world_size=2)
    try:
        listener = Listener()
        _, trainer = train(shards, run, make_config(shards, 6, training=RANKED), listener=listener)
        torch.save((trainer.model.state_dict(), len(listener.records)), end / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="the loopback interface has no name for gloo on Windows")
def test_two_ranks_train_as_one_process_does_and_only_the_first_writes(tiny_shards: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    run, alone = tmp_path / "run", tmp_path / "alone"
    processes = [context.Process(target=train_on_rank, args=(rank, tiny_shards, run, tmp_path)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    train(tiny_shards, alone, make_config(tiny_shards, 6, training=RANKED))
    (first, num_told), (second, num_silent) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (num_told, num_silent) == (6 + 3, 0)
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)
    assert len(storage.read_json_lines(run / "metrics.jsonl")) == 6 + 3
    ours, theirs = (load_file(path / "checkpoints" / "step-00000006" / "model.safetensors") for path in (run, alone))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(ours[name], first[name]) for name in ours)


def test_ranks_that_cannot_share_the_microbatches_are_refused(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "num_ranks", lambda: 2)
    config = make_config(tiny_shards, 3, training={"accumulation_steps": 3})
    with pytest.raises(UsageError, match="accumulation_steps is 3, which 2 ranks cannot share evenly"):
        train(tiny_shards, tmp_path / "run", config)
