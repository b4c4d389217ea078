"""Stops a run at a signal: the first one asks for a clean end, a second one ends the process.

A signal to one rank stops all ranks: they exchange their signals and accept the same one (`StopRequest.accept`). The
first rank prints the line.

Stages that keep their finished parts at any point need no clean end: for them a signal is an error, `Interrupted`.
"""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from tinyllm.errors import Interrupted
from tinyllm.machine import ranks

_REPEAT_SECONDS = 0.01
"""Delay before an exit that Python discarded is raised again."""


class StopRequest:
    """The state of `stop_signals`: `signal_number` is None until SIGINT, SIGTERM or SIGHUP arrives at this rank.

    With several ranks it may also be the signal of another one.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.has_work_to_save = False
        """While False, the first signal ends the process at once: there is no work to save."""
        self.is_listening = True
        """False outside the main thread, where Python allows no signal handlers."""
        self.terminals = [number for number in (1, 2) if os.isatty(number)]
        """Descriptors of standard output and error that are terminals; writing fails after the terminal closes."""
        self._has_own_signal = False
        self._exit: SystemExit | None = None
        """The exit that has been raised."""
        self._show_unraisable = sys.unraisablehook

    def __bool__(self) -> bool:
        """Whether a stop is requested. Raises the exit again if a library caught it: compilers clear exceptions."""
        if self._exit is not None:
            raise self._exit
        return self.signal_number is not None

    def accept(self, number: int) -> None:
        """Makes `number`, the signal of any rank, this rank's request; the first rank prints one line if it is new.

        The first signal that arrives here afterwards is part of the same request: launchers signal every rank in turn.
        """
        is_new = self.signal_number is None
        self.signal_number = number
        if is_new:
            self._announce(number)

    def _announce(self, number: int) -> None:
        if ranks.is_first():
            _print_line(f"\n{_name(number)}: finishing this step, saving and evaluating it (again to stop at once)")

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._exit is not None:
            raise self._exit
        name, is_first = _name(number), not self._has_own_signal
        if name == "SIGHUP":
            self._leave_terminal()
            if self.signal_number is not None:
                return  # The kernel and the shell each send one when a terminal closes: not a second request.
        self._has_own_signal = True
        if is_first and self.signal_number is not None:
            return  # Another rank got it earlier.
        if self.signal_number is not None or not self.has_work_to_save:
            # The second signal ends the process at once; the last whole checkpoint stays.
            is_second = self.signal_number is not None
            saved = "goes on from its last checkpoint" if is_second else "begins where this one did"
            _print_line(f"\n{name}: stopped; a resumed run {saved}")
            self._exit = SystemExit(128 + number)
            raise self._exit
        self.signal_number = number
        self._announce(number)

    def _repeat_if_discarded(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Raises the exit again soon: Python discards exceptions in destructors and callbacks of weak references."""
        if unraisable.exc_value is not self._exit or self._exit is None:
            self._show_unraisable(unraisable)
            return
        # A thread, because the signal would interrupt this hook, where exceptions are discarded too.
        repeat = threading.Timer(_REPEAT_SECONDS, _thread.interrupt_main, [int(signal.SIGINT)])
        repeat.daemon = True
        repeat.start()

    def _leave_terminal(self) -> None:
        """Redirects output from a closed terminal to the null device, so that later lines do not fail."""
        null = os.open(os.devnull, os.O_WRONLY)
        for number in self.terminals:
            os.dup2(null, number)
        os.close(null)


def _name(number: int) -> str:
    return signal.Signals(number).name


def _print_line(message: str) -> None:
    """Prints one line on stderr; ignores a failure, because a signal handler must finish."""
    with suppress(OSError, RuntimeError, ValueError):  # closed, full, or interrupted in the middle of another line
        if sys.stderr is not None:
            print(message, file=sys.stderr)


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Records the first SIGINT, SIGTERM or SIGHUP in its body; a second one ends the process at once.

    Until `has_work_to_save` is set, the first signal ends the process too: compiling a model may take a minute.
    A SIGHUP that is ignored (nohup) stays ignored. Outside the main thread no handler is installed, and `is_listening`
    is False.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        request.is_listening = False
        yield request
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, request._receive) for number in numbers}
    sys.unraisablehook = request._repeat_if_discarded
    failed = True
    try:
        yield request
        failed = False
    finally:
        sys.unraisablehook = request._show_unraisable
        for number, handler in before.items():
            signal.signal(number, handler)
        if failed and ranks.has_group():
            absorb_termination()


def absorb_termination() -> None:
    """Lets this process end by itself: the next SIGTERM is ignored, and the one after it has its earlier effect.

    For a rank with an error: torchrun sends one SIGTERM to all ranks when the first one has ended. It would cut off
    the line of the error and the last uploads.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or getattr(before, "absorbs", False):
        return

    def absorb(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, before)

    absorb.absorbs = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, absorb)


@contextmanager
def signals_as_errors(message: str) -> Iterator[None]:
    """Raises Interrupted with `message` in its body at SIGINT or SIGTERM. Only the main thread may call it."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        raise Interrupted(message, number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def children_without_sigint() -> Iterator[None]:
    """Processes that are started in its body never receive SIGINT, not even while they import.

    Ctrl-C signals the whole process group, and only this process handles it. Windows has no such mask.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
