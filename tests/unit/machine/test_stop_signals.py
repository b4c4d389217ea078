"""A signal ends the body of `stop_signals`, wherever Python is when it arrives."""

import contextlib
import os
import signal
import time
import weakref

import pytest

from tinyllm.errors import Interrupted
from tinyllm.machine import ranks
from tinyllm.machine.signals import signals_as_errors, stop_signals


class Referent:
    """Something that a weak reference can name."""


def work_until_stopped() -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_weak_references_callback_still_ends_the_process(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python discards what such a callback raises, and torch.compile has many of them."""
    with pytest.raises(SystemExit) as end, stop_signals():
        referent = Referent()
        reference = weakref.ref(referent, lambda _: os.kill(os.getpid(), number))
        del referent
        work_until_stopped()
    assert reference() is None
    assert end.value.code == 128 + number
    written = capsys.readouterr().err
    assert written == f"\n{number.name}: stopped; a resumed run begins where this one did\n"


def test_an_exit_that_a_library_catches_is_raised_at_the_next_question() -> None:
    """A compiler that runs Python code clears what it raises; training must not go on after "stopped"."""
    with pytest.raises(SystemExit) as end, stop_signals() as stop:
        with contextlib.suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
            work_until_stopped()
        assert not stop
        pytest.fail("the exit was forgotten")
    assert end.value.code == 128 + signal.SIGTERM


def test_a_second_signal_names_the_checkpoint_while_the_last_step_is_evaluated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The loop has saved and says so: `has_work_to_save` is False again."""
    with pytest.raises(SystemExit), stop_signals() as stop:
        stop.has_work_to_save = True
        os.kill(os.getpid(), signal.SIGINT)
        stop.has_work_to_save = False
        os.kill(os.getpid(), signal.SIGINT)
        work_until_stopped()
    assert capsys.readouterr().err.endswith("SIGINT: stopped; a resumed run goes on from its last checkpoint\n")


def test_the_signal_of_another_rank_is_a_request_that_the_own_first_signal_does_not_repeat(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A launcher signals all ranks in turn, so the own signal may arrive after the ranks agreed on the stop."""
    with pytest.raises(SystemExit) as end, stop_signals() as stop:
        stop.has_work_to_save = True
        stop.accept(signal.SIGTERM)
        assert stop
        assert stop.signal_number == signal.SIGTERM
        stop.has_work_to_save = False
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        os.kill(os.getpid(), signal.SIGTERM)
        work_until_stopped()
    assert end.value.code == 128 + signal.SIGTERM
    first, second = capsys.readouterr().err.split("\n\n")
    assert first == "\nSIGTERM: finishing this step, saving and evaluating it (again to stop at once)"
    assert second == "SIGTERM: stopped; a resumed run goes on from its last checkpoint\n"


@pytest.mark.parametrize("is_own", [True, False])
def test_only_the_first_rank_announces_a_stop(
    is_own: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    with stop_signals() as stop:
        stop.has_work_to_save = True
        if is_own:
            os.kill(os.getpid(), signal.SIGINT)
        stop.accept(signal.SIGINT)
        assert stop
    assert capsys.readouterr().err == ""


def test_other_discarded_exceptions_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[type[BaseException]] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: shown.append(unraisable.exc_type))
    with stop_signals():
        referent = Referent()
        reference = weakref.ref(referent, lambda _: 1 / 0)
        del referent
    assert reference() is None
    assert shown == [ZeroDivisionError]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_becomes_an_error_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="^stopped; call again$") as caught, signals_as_errors("stopped; call again"):
        os.kill(os.getpid(), number)
        work_until_stopped()
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) == before


def test_an_error_of_a_rank_absorbs_the_signal_of_torchrun_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun signals the ranks that are left when one ends; a rank with an error tells it, and uploads."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        for has_group, expected in ((False, [signal.SIGTERM]), (True, [])):
            got.clear()
            monkeypatch.setattr(ranks, "has_group", lambda has_group=has_group: has_group)
            with contextlib.suppress(OSError), stop_signals():
                raise OSError("the disk is full")
            os.kill(os.getpid(), signal.SIGTERM)
            assert got == expected
        os.kill(os.getpid(), signal.SIGTERM)
        assert got == [signal.SIGTERM]
        with stop_signals():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert got == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)
