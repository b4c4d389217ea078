"""Work that is done once a run: with one process, with a fake group of two, and with two real processes."""

import contextlib
import io
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from rank_processes import LOOPBACK, NEEDS_LOOPBACK
from tinyllm import storage
from tinyllm.errors import Interrupted, LostRankError, MismatchError, TinyllmError, UsageError
from tinyllm.machine import ranks
from tinyllm.shards.format import ShardSet
from tinyllm.training.builder import build_trainer
from tinyllm.training.loop import Trainer
from tinyllm.training.next_token import NextToken
from training_runs import Listener, losses, make_config, train

RANKED = {"accumulation_steps": 2, "eval_interval": 4}


def test_one_process_is_the_first_of_one_rank() -> None:
    assert (ranks.rank(), ranks.num_ranks(), ranks.is_first()) == (0, 1, True)
    value = object()
    assert ranks.once(lambda: value) is value
    assert ranks.broadcast(value) is value
    assert ranks.gather(value) == [value]
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


def test_small_tensors_travel_together_and_large_ones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Doubling(Group):
        def all_reduce(self, tensor: torch.Tensor) -> None:
            sizes.append(tensor.numel())
            tensor.mul_(2)

    monkeypatch.setattr(ranks, "_group", lambda: Doubling(0, []))
    monkeypatch.setattr(ranks, "BUCKET_BYTES", 4 * 6)
    shapes = [(), (2, 2), (1,), (3,), (7,), (1,)]
    tensors = [torch.full(shape, 1.0 + place) for place, shape in enumerate(shapes)]
    ranks.add_up([*tensors, torch.ones(1, dtype=torch.float64)])
    assert sizes == [6, 3, 7, 1, 1]
    for place, tensor in enumerate(tensors):
        assert torch.equal(tensor, torch.full(shapes[place], 2.0 + 2 * place))


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
    with pytest.raises(LostRankError, match="the first rank failed: UsageError: the disk is full"):
        ranks.once(fail)


def test_an_exit_of_the_first_rank_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others may be in another exchange, so a message would never arrive."""
    messages: list[Any] = []

    def leave() -> None:
        raise SystemExit(143)

    monkeypatch.setattr(ranks, "_group", lambda: Group(0, messages))
    with pytest.raises(SystemExit):
        ranks.once(leave)
    assert messages == []


def test_a_lost_rank_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Group):
        def all_gather_object(self, values: list[Any], value: Any) -> None:
            raise RuntimeError(
                "[/some/pair.cc:537] Read error [::1]:21: Connection reset by peer. This is typical.\n at"
            )

    monkeypatch.setattr(ranks, "_group", lambda: Broken(0, []))
    with pytest.raises(LostRankError) as lost:
        ranks.gather(1)
    assert str(lost.value) == (
        "rank 0 lost another rank of the run, which was killed or cut off: Read error [::1]:21: Connection reset by "
        "peer; go on from the last checkpoint with `resume=True`"
    )


Scenario = Callable[[int, Path, Path], Any]
"""The work of one rank: takes the rank, the shards and a folder of the test; returns what the test looks at."""


def run_rank(scenario: Scenario, rank: int, shards: Path, folder: Path) -> None:
    """Calls `scenario` as one of two ranks; writes its result to a file in `folder`."""
    import torch.distributed as distributed

    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=2)
    try:
        torch.save(scenario(rank, shards, folder), folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


def on_two_ranks(scenario: Scenario, shards: Path, folder: Path) -> list[Any]:
    """The results of `scenario` on the ranks 0 and 1, two processes."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=run_rank, args=(scenario, rank, shards, folder)) for rank in (0, 1)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def train_to_the_end(rank: int, shards: Path, folder: Path) -> tuple[dict[str, torch.Tensor], int]:
    """The final weights, and how many events the rank told."""
    listener = Listener()
    _, trainer = train(shards, folder / "run", make_config(shards, 6, training=RANKED), listener=listener)
    return trainer.model.state_dict(), len(listener.records)


@NEEDS_LOOPBACK
def test_two_ranks_train_as_one_process_does_and_only_the_first_writes(tiny_shards: Path, tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    (first, num_told), (second, num_silent) = on_two_ranks(train_to_the_end, tiny_shards, tmp_path)
    train(tiny_shards, alone, make_config(tiny_shards, 6, training=RANKED))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (num_told, num_silent) == (6 + 3, 0)
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)
    assert len(storage.read_json_lines(run / "metrics.jsonl")) == 6 + 3
    ours, theirs = (load_file(path / "checkpoints" / "step-00000006" / "model.safetensors") for path in (run, alone))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(ours[name], first[name]) for name in ours)


def record_masks(rank: int, shards: Path, folder: Path) -> list[torch.Tensor]:
    """The first dropout mask of each update: where the output of the first dropout is 0."""
    config = make_config(shards, 3, model={"dropout": 0.5}, training=RANKED)
    trainer = build_trainer(config, ShardSet.open(shards), folder / "run", reporter=Listener())
    masks: dict[int, torch.Tensor] = {}

    def record(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if module.training:
            masks.setdefault(trainer.state.step, output == 0)

    dropout = next(part for part in trainer.model.modules() if isinstance(part, torch.nn.Dropout))
    dropout.register_forward_hook(record)
    trainer.train(resume=False, to_toml=lambda config: "")
    return [masks[step] for step in range(3)]


@NEEDS_LOOPBACK
def test_each_rank_drops_other_activations_and_the_first_drops_those_of_one_process(
    tiny_shards: Path, tmp_path: Path
) -> None:
    first, second = on_two_ranks(record_masks, tiny_shards, tmp_path)
    (tmp_path / "alone").mkdir()
    alone = record_masks(0, tiny_shards, tmp_path / "alone")
    assert all(0.3 < mask.float().mean() < 0.7 for mask in (*first, *second))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, alone, strict=True))
    masks = [*first, *second]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(masks, 2))


def start_with_other_seeds(rank: int, shards: Path, folder: Path) -> list[str]:
    """The error of ranks with other seeds, and the error of the first rank after the second has left."""
    with pytest.raises(MismatchError) as refused:
        train(shards, folder / "run", make_config(shards, 3, training={**RANKED, "seed": 40 + rank}))
    if rank == 1:
        return [str(refused.value)]
    with pytest.raises(TinyllmError) as lost:
        ranks.gather(0)
    return [str(refused.value), str(lost.value)]


@NEEDS_LOOPBACK
def test_ranks_with_other_seeds_are_refused_and_a_lost_rank_is_named(tiny_shards: Path, tmp_path: Path) -> None:
    (refused, lost), others = on_two_ranks(start_with_other_seeds, tiny_shards, tmp_path)
    assert refused == "rank 1 has training.seed 41, and rank 0 has 40; start every rank with the same settings"
    assert others == [refused]
    assert lost.startswith("rank 0 lost another rank of the run, ")
    assert not (tmp_path / "run").exists()


SIGNALLED = ((0,), (1,), (0, 1))
"""Ranks that get a signal during the third update, in three runs."""


def stop_at_the_third_update(rank: int, shards: Path, folder: Path) -> list[tuple[Any, ...]]:
    """The outcome of each run of `SIGNALLED` and the lines on standard error; and the outcome of a time limit."""
    results: list[tuple[Any, ...]] = []
    batches = NextToken.batches
    for number, signalled in enumerate(SIGNALLED):

        def send(self: NextToken, step: int, signalled: tuple[int, ...] = signalled) -> Iterator[torch.Tensor]:
            if step == 2 and rank in signalled:
                os.kill(os.getpid(), signal.SIGTERM)
            return batches(self, step)

        errors = io.StringIO()
        with (
            mock.patch.object(NextToken, "batches", send),
            contextlib.redirect_stderr(errors),
            pytest.raises(Interrupted) as stopped,
        ):
            train(shards, folder / f"run-{number}", make_config(shards, 8, training=RANKED))
        results.append((stopped.value.exit_code, str(stopped.value), errors.getvalue()))
    is_late = rank == 1
    with mock.patch.object(Trainer, "_is_out_of_time", lambda self: is_late and self.state.step == 3):
        outcome, _ = train(shards, folder / "run-of-time", make_config(shards, 8, training=RANKED))
    results.append((outcome.reason, repr(outcome), ""))
    return results


@NEEDS_LOOPBACK
def test_a_signal_or_a_time_limit_of_any_rank_stops_all_with_one_line(tiny_shards: Path, tmp_path: Path) -> None:
    first, second = on_two_ranks(stop_at_the_third_update, tiny_shards, tmp_path)
    for number, (ours, theirs) in enumerate(zip(first[:-1], second[:-1], strict=True)):
        assert ours[:2] == theirs[:2]
        assert ours[0] == 128 + signal.SIGTERM
        assert ours[1].startswith("stopped at step 3 and saved; ")
        line = "\nSIGTERM: finishing this step, saving and evaluating it (again to stop at once)\n"
        assert (ours[2], theirs[2]) == (line, "")
        stops = storage.read_json_lines(tmp_path / f"run-{number}" / "stops.jsonl")
        assert [(stop["step"], stop["reason"]) for stop in stops] == [(3, "signal 15")]
        assert (tmp_path / f"run-{number}" / "checkpoints" / "step-00000003").is_dir()
    assert first[-1] == second[-1]
    assert first[-1][0] == "time"


def test_more_ranks_than_windows_of_an_update_are_refused(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "num_ranks", lambda: 7)
    config = make_config(tiny_shards, 3, training={"accumulation_steps": 3})
    with pytest.raises(UsageError, match="training.accumulation_steps is 6, so 7 ranks cannot each have a window"):
        NextToken(config, ShardSet.open(tiny_shards), torch.device("cpu"))
