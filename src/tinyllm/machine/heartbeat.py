"""Watches the hosts of a run: a host that is cut off sends no error, so its silence ends this process.

One process of each host counts up its own key in the launch's store, and reads the keys of the others. A second thread
watches the first: without a network, its read never returns.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 60.0
"""Longest silence of a host. A process that holds the interpreter for so long in one call would count as silent."""
LEAVE_SECONDS = 5.0
"""Longest wait for the threads at the end."""


class Hearts:
    """The last signs of life of all hosts, as this one sees them."""

    def __init__(self, num_hosts: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.beats = [b""] * num_hosts
        self.heard = [clock()] * num_hosts
        self.answered = clock()

    def hear(self, beats: list[bytes]) -> None:
        """Takes the beats of all hosts, which the store has answered."""
        self.answered = self.clock()
        for host, beat in enumerate(beats):
            if beat != self.beats[host]:
                self.beats[host], self.heard[host] = beat, self.answered

    def problem(self) -> str:
        """A line on a host or store that has been silent for too long; empty if there is none."""
        silence = self.clock() - self.answered
        if silence > SILENCE_SECONDS:
            return f"the host of torchrun's store has been silent for {silence:.0f} s"
        for host, heard in enumerate(self.heard):
            if self.answered - heard > SILENCE_SECONDS:
                return f"host {host} of the run has been silent for {self.answered - heard:.0f} s"
        return ""


@contextmanager
def beating(open_store: Callable[[], Any], host: int, num_hosts: int) -> Iterator[None]:
    """Beats for `host` and watches the others during the block; their silence ends the process with one line."""
    hearts, done = Hearts(num_hosts), threading.Event()
    store = open_store()
    threads = [
        threading.Thread(target=_beat, args=(store, host, hearts, done), daemon=True),
        threading.Thread(target=_watch, args=(hearts, done), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        # A thread of the store that outlives the interpreter may abort the process.
        for thread in threads:
            thread.join(LEAVE_SECONDS)


def _beat(store: Any, host: int, hearts: Hearts, done: threading.Event) -> None:
    names = [f"beat/{each}" for each in range(len(hearts.beats))]
    count = 0
    while not done.wait(BEAT_SECONDS):
        count += 1
        try:
            store.set(names[host], str(count))
            hearts.hear([store.get(name) if store.check([name]) else b"" for name in names])
        except RuntimeError:
            return  # The store is gone; `_watch` tells it after a while, unless the run ends before.


def _watch(hearts: Hearts, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        problem = hearts.problem()
        if problem:
            print(f"tinyllm: {problem}; a restart goes on from the last checkpoint", file=sys.stderr, flush=True)
            # The main thread waits in an exchange that never ends. Files are as safe as after a kill.
            os._exit(1)
