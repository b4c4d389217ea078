"""The exception tree for everything that a user can cause or meet.

A message is one line that names the problem, the place, the limit, and the remedy. The command line prints exactly
that line. Nothing here formats tracebacks or exits. Invariants of the code itself are `assert`s.
"""


class TinyllmError(Exception):
    """Base class of all errors that are shown as one line instead of a traceback."""

    exit_code = 1


class UsageError(TinyllmError):
    """The command line is wrong: a flag out of range, a missing argument."""

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


class MismatchError(TinyllmError):
    """Two valid objects do not belong together: a model and a tokenizer, or a run and its shards."""


class DownloadError(TinyllmError):
    """A download did not give a complete, checked file."""


class DivergenceError(TinyllmError):
    """Training stopped because losses or gradients were not finite too many times in a row."""


class Interrupted(TinyllmError):
    """A signal ended a command after it saved its work; `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
