"""A signal ends the body of `stop_signals`, wherever Python is when it arrives."""

import os
import signal
import time
import weakref

import pytest

from tinyllm.machine.signals import stop_signals


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


def test_other_discarded_exceptions_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[type[BaseException]] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: shown.append(unraisable.exc_type))
    with stop_signals():
        referent = Referent()
        reference = weakref.ref(referent, lambda _: 1 / 0)
        del referent
    assert reference() is None
    assert shown == [ZeroDivisionError]
