"""Renders chat templates in a process of its own, because a template may come from a stranger.

The sandbox and the bounds of `templates` end a loop. They cannot end one call of a function that is written in C, such
as a text that is padded to a billion characters. It would hold this process, all its models and its memory. A process
can be ended. It starts at the first chat and waits for the next one, and a new one follows it if it had to be ended.

The processes exchange lines of JSON through pipes: a job is [template, messages, tokens], an answer {"text": ...} or
{"error": ...}. `python -m tinyllm.serving.template_process` is the program of the other side.
"""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence

from tinyllm.machine import system
from tinyllm.serving.templates import RENDER_SECONDS, compile_template, render_template

LARGEST_BYTES = 2**30
"""Largest address space of the process, where the system can bound it."""
WAIT_SECONDS = 10.0
"""Longest wait for an answer. The process ends itself after its processor time where the system can do that."""
STOPPED = f"it runs for longer than {RENDER_SECONDS:g} s, or needs too much memory"


class TemplateProcess:
    """The process that renders; one conversation at a time, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ending: Callable[[], object] = lambda: None
        """Ends the process; called by itself when this object is gone, or Python ends."""

    def render(self, template: str, messages: Sequence[Mapping[str, str]], tokens: Mapping[str, str]) -> str:
        """The text that `render_template` returns. Raises ValueError with the reason if there is none."""
        job = json.dumps([template, list(messages), dict(tokens)]).encode() + b"\n"
        with self._lock:
            answer = self._ask(job)
        if answer is None:
            raise ValueError(STOPPED)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["text"]

    def close(self) -> None:
        """Ends the process, if there is one, and with it a conversation that is being rendered."""
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

    def _ask(self, job: bytes) -> dict[str, str] | None:
        """The answer of the process; None if it ended, or had to be ended, without one."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = _start()
            self._ending = weakref.finalize(self, _stop, self._process)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(WAIT_SECONDS, process.kill)
        timer.start()
        try:
            process.stdin.write(job)
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # the process ended before it read the job; Windows has another error than a broken pipe
            line = b""
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            self._end()
            return None
        answer: dict[str, str] = json.loads(line)
        return answer

    def _end(self) -> None:
        self._process = None
        self._ending()


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tinyllm.serving.template_process"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and closes its pipes."""
    process.kill()
    with contextlib.suppress(BrokenPipeError):  # a job that was not read is lost with its process
        process.communicate()


def main() -> None:
    """Answers jobs from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server ends this process
    system.bound_memory(LARGEST_BYTES)
    for line in sys.stdin.buffer:
        template, messages, tokens = json.loads(line)
        with system.ended_after(2 * RENDER_SECONDS):
            answer = _answer(template, messages, tokens)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def _answer(template: str, messages: Sequence[Mapping[str, str]], tokens: Mapping[str, str]) -> dict[str, str]:
    try:
        return {"text": render_template(compile_template(template), messages, tokens)}
    except ValueError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    main()
