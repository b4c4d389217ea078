"""Two ranks of one run: one is killed at any moment, or gets a signal. Both end, and the run goes on bit for bit."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import trials
from rank_processes import NEEDS_LOOPBACK, Ranks, train_on
from tinyllm import storage

pytestmark = NEEDS_LOOPBACK
LIMIT_SECONDS = 30
"""Longest time from the death of a rank to the end of the others."""


@pytest.fixture(scope="session")
def whole_of_two(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run on two ranks without any fault."""
    run = tmp_path_factory.mktemp("whole_of_two") / "run"
    train_on(2, run, trials.train_arguments(tiny_shards, run))
    return run


def train_and_die(victim: int, seconds: float, arguments: list[str]) -> None:
    """Runs `tinyllm train`; rank `victim` is killed `seconds` after its first update."""
    if int(os.environ["RANK"]) == victim:
        from tinyllm.training.loop import Trainer

        def die() -> None:
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGKILL)

        def started(update: Callable[..., None]) -> Callable[..., None]:
            def update_and_start(trainer: Trainer, stop: object) -> None:
                if not trainer.state.step:
                    threading.Thread(target=die, daemon=True).start()
                update(trainer, stop)

            return update_and_start

        trials.wrap(Trainer, "_update", started)
    trials.command(*arguments)


@pytest.mark.promise("18 one of two ranks killed: all end with one line, resumes bit for bit", fast=5, full=50)
def test_a_killed_rank_ends_the_other_and_the_run_goes_on(
    count: int, tell: Callable[[str], None], tiny_shards: Path, whole_of_two: Path, tmp_path: Path
) -> None:
    number, slowest, killed = random.Random(count), 0.0, 0
    for index in range(count):
        run, victim = tmp_path / f"run{index}", index % 2
        arguments = trials.train_arguments(tiny_shards, run)
        ranks = Ranks(2, tmp_path / f"output{index}", (victim, number.uniform(0, 0.4), arguments), train_and_die)
        code = ranks.trials[victim].end()
        start = time.monotonic()
        other = ranks.trials[1 - victim]
        other_code = other.end()
        slowest = max(slowest, time.monotonic() - start)
        if code == -signal.SIGKILL:
            killed += 1
            # The kill may come after the last exchange: the other rank is done then.
            assert other_code in (0, 1), ranks.text()
            assert other.text().count("tinyllm: ") == other_code, ranks.text()
            lost = f"tinyllm: rank {1 - victim} lost another rank of the run, which was killed or cut off: "
            assert other_code == 0 or lost in other.text(), ranks.text()
        assert "Traceback" not in ranks.text()
        assert trials.damaged_checkpoints(run) == []
        train_on(2, run, arguments)
        trials.assert_same_run(run, whole_of_two)
    assert killed >= 0.5 * count
    assert slowest < LIMIT_SECONDS
    tell(f"{killed} killed; the other rank ended at most {slowest:.1f} s later")


def train_with_signals(signals: dict[int, int], step: int, arguments: list[str]) -> None:
    """Runs `tinyllm train`; the ranks in `signals` get their signal in the update after `step` updates."""
    from tinyllm.training.loop import Trainer

    own = signals.get(int(os.environ["RANK"]))

    def sent(update: Callable[..., None]) -> Callable[..., None]:
        def send_and_update(trainer: Trainer, stop: object) -> None:
            if trainer.state.step == step and own is not None:
                os.kill(os.getpid(), own)
            update(trainer, stop)

        return send_and_update

    trials.wrap(Trainer, "_update", sent)
    trials.command(*arguments)


@pytest.mark.slow
@pytest.mark.promise("19 a signal to one or both of two ranks: saved, one line, resumes bit for bit", fast=5, full=50)
def test_a_signal_to_any_rank_saves_once(
    count: int, tell: Callable[[str], None], tiny_shards: Path, whole_of_two: Path, tmp_path: Path
) -> None:
    number, slowest = random.Random(count), 0.0
    for index in range(count):
        run = tmp_path / f"run{index}"
        chosen = number.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        ranks_with_signal = [(0,), (1,), (0, 1)][index % 3]
        step = number.randrange(1, trials.NUM_STEPS)
        arguments = trials.train_arguments(tiny_shards, run)
        start = time.monotonic()
        ranks = Ranks(
            2,
            tmp_path / f"output{index}",
            (dict.fromkeys(ranks_with_signal, int(chosen)), step, arguments),
            train_with_signals,
        )
        assert ranks.end() == [128 + chosen] * 2, ranks.text()
        slowest = max(slowest, time.monotonic() - start)
        assert ranks.text().count(f"{chosen.name}: finishing this step") == 1, ranks.text()
        assert ranks.text().count("tinyllm: stopped at step") == 1, ranks.text()
        assert trials.newest_step(run) == trials.last_logged_step(run) == step + 1
        storage.verify(run / "model", "model")
        train_on(2, run, arguments)
        trials.assert_same_run(run, whole_of_two)
    tell(f"exit codes 143, 130 and 129 on both; the slowest run took {slowest:.1f} s")
