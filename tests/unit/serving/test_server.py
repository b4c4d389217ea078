"""Signals, and the end of a server of many models."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from serving_stub import StubScheduler, running, served
from tinyllm.serving.deliveries import Deliveries
from tinyllm.serving.limits import Limits
from tinyllm.serving.models import Models
from tinyllm.serving.server import Server

HANGUP: int = getattr(signal, "SIGHUP", 0)
NUM_MODELS = 40
"""More than the event loop's own pool has threads."""


@pytest.fixture
def hangup() -> Iterator[None]:
    """Restores the handler of SIGHUP."""
    before = signal.getsignal(HANGUP)
    yield
    signal.signal(HANGUP, before)


def make_server() -> Server:
    async def app(*_: object) -> None:
        """Never called."""

    return Server(app, Models([served()]), Deliveries(), Limits(), lambda: None)


@pytest.mark.usefixtures("hangup")
@pytest.mark.skipif(not HANGUP, reason="the system has no SIGHUP")
def test_a_hangup_ends_the_server_as_other_signals_do() -> None:
    signal.signal(HANGUP, signal.SIG_DFL)
    server = make_server()
    with server.capture_signals():
        assert signal.getsignal(HANGUP) == signal.getsignal(signal.SIGTERM) == server.handle_exit
        os.kill(os.getpid(), HANGUP)
        assert server.should_exit
    assert signal.getsignal(HANGUP) == signal.SIG_DFL


@pytest.mark.usefixtures("hangup")
@pytest.mark.skipif(not HANGUP, reason="the system has no SIGHUP")
def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    signal.signal(HANGUP, signal.SIG_IGN)
    server = make_server()
    with server.capture_signals():
        os.kill(os.getpid(), HANGUP)
        assert not server.should_exit


def test_all_models_drain_at_once() -> None:
    together = threading.Barrier(NUM_MODELS)

    class WaitingScheduler(StubScheduler):
        def drain(self, seconds: float) -> bool:
            together.wait(10)
            return super().drain(seconds)

    schedulers = [WaitingScheduler() for _ in range(NUM_MODELS)]
    with running(*(served(str(index), each) for index, each in enumerate(schedulers))):
        pass
    assert [each.drained_seconds for each in schedulers] == [Limits().drain_seconds] * NUM_MODELS
