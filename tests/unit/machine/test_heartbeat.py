"""A host that is silent for too long is named; one that beats is not."""

import threading

import pytest

from tinyllm.machine import heartbeat
from tinyllm.machine.heartbeat import Hearts, beating


def test_a_silent_host_and_a_silent_store_are_named() -> None:
    time = 0.0
    hearts = Hearts(2, lambda: time)
    for time in (10.0, 40.0, 60.0):
        hearts.hear([str(time).encode(), b"1"])
        assert hearts.problem() == ""
    time = 75.0
    hearts.hear([b"75", b"1"])
    assert hearts.problem() == "host 1 of the run has been silent for 65 s"
    hearts.hear([b"75", b"2"])
    assert hearts.problem() == ""
    time = 140.0
    assert hearts.problem() == "the host of torchrun's store has been silent for 65 s"


class Store:
    """The keys of all hosts; `is_gone` makes it fail as a store does whose host has ended."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}
        self.is_gone = False
        self.asked = threading.Event()

    def set(self, name: str, value: str) -> None:
        self.keys[name] = value.encode()

    def get(self, name: str) -> bytes:
        return self.keys[name]

    def check(self, names: list[str]) -> bool:
        self.asked.set()
        if self.is_gone:
            raise RuntimeError("Connection reset by peer")
        return all(name in self.keys for name in names)


@pytest.mark.parametrize("is_gone", [False, True])
def test_the_threads_end_with_the_block(is_gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)
    store = Store()
    store.is_gone = is_gone
    before = threading.active_count()
    with beating(lambda: store, 1, 2):
        assert store.asked.wait(60)
    assert threading.active_count() == before
    assert int(store.keys["beat/1"]) >= 1


def test_silence_ends_the_process_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, codes = threading.Event(), list[int]()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(heartbeat, "SILENCE_SECONDS", 0.01)
    monkeypatch.setattr("os._exit", end)
    with beating(Store, 0, 2):
        assert ended.wait(60)
    assert set(codes) == {1}
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("tinyllm: ") for line in lines)
    assert lines[0].endswith("; a restart goes on from the last checkpoint")
