"""The exception tree for everything that a user can cause or meet.

A message is one line that names the problem, the place, the limit, and the remedy. It names parameters as Python
callers write them; the command line prints the same line with its flags (`tinyllm.cli.flags`). Nothing here formats
tracebacks or exits. Invariants of the code itself are `assert`s.
"""


class TinyllmError(Exception):
    """Base class of all errors that are shown as one line instead of a traceback.

    message    the problem, the place and the limit
    parameter  the parameter whose value is wrong: the first word of the message, or empty
    hint       what to do; parameters, values and calls stand in backticks: `overwrite=True`

    >>> print(TinyllmError("shards exists already", hint="replace it with `overwrite=True`"))
    shards exists already; replace it with `overwrite=True`
    """

    exit_code = 1
    is_shown = False
    """Whether another process of the run shows this error to the user."""

    def __init__(self, message: str, *, parameter: str = "", hint: str = "") -> None:
        assert message.startswith(parameter), f"the message begins with the parameter: {message}"
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message, self.parameter, self.hint = message, parameter, hint

    def reword(self, line: str) -> None:
        """Replaces the whole message by `line`, in the words of a program that catches and raises the error again."""
        self.args, self.message, self.parameter, self.hint = (line,), line, "", ""


class UsageError(TinyllmError):
    """An argument is wrong: out of range, missing, or against another."""

    exit_code = 2


class ArgumentsError(UsageError):
    """Arguments are missing, too many, or contradictory; the command line adds a pointer to its help."""


class ConfigError(UsageError, ValueError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class InputError(TinyllmError):
    """The user's input cannot be used: a missing file, invalid text, a corpus too small."""


class FormatError(InputError):
    """A file does not match its name or header. Names the file, the field, the value found and the one expected."""


class ArtifactError(TinyllmError):
    """A directory or file that tinyllm wrote is incomplete, damaged, or locked by another run."""


class ResourceError(TinyllmError):
    """The machine has too little memory for a request. Names the bytes needed and the bytes available."""


class QueueFullError(TinyllmError):
    """A server has no room for another text; `retry_after_seconds` guesses when it has."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message, hint=f"try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class ShuttingDownError(TinyllmError):
    """A server takes no more texts, or ended this one, because it is shutting down."""


class MismatchError(TinyllmError):
    """Two valid objects do not belong together: a model and a tokenizer, or a run and its shards."""


class DownloadError(TinyllmError):
    """A download did not give a complete, checked file."""


class UploadError(TinyllmError):
    """An upload did not give complete, checked objects."""


class LostRankError(TinyllmError):
    """Another process of a training run failed or ended, so this one cannot go on."""


class DivergenceError(TinyllmError):
    """Training stopped because losses or gradients were not finite too many times in a row."""


class Interrupted(TinyllmError):
    """A signal ended a command after it saved its work; `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal_number
