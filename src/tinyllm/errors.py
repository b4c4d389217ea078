"""One exception tree for everything a user can cause or meet.

A message is one line that names what is wrong, where, the limit, and what to do about it. The command line prints
exactly that line; nothing here formats tracebacks or exits. Invariants of our own code stay `assert`s.
"""


class TinyllmError(Exception):
    """Anything that tinyllm tells its user instead of showing a traceback."""

    exit_code = 1


class UsageError(TinyllmError):
    """The command itself is off: a flag out of range, an argument that is missing."""

    exit_code = 2


class ArgumentsError(UsageError):
    """Arguments are missing, too many, or do not go together: the command line adds where its help is."""


class ConfigError(UsageError, ValueError):
    """A setting that is unknown, of the wrong type, or contradicts another."""


class InputError(TinyllmError):
    """What the user handed in cannot be used: a missing file, invalid text, a corpus too small."""


class FormatError(InputError):
    """A file is not what its name or header claims. Names the file, the field, what was found and what was expected."""


class ArtifactError(TinyllmError):
    """A directory or file that tinyllm wrote is incomplete, damaged, or locked by another run."""


class ResourceError(TinyllmError):
    """The machine has too little memory for what was asked. Names the bytes needed and those available."""


class MismatchError(TinyllmError):
    """Two whole things do not belong together: a model and a tokenizer, or a run and its shards."""


class DownloadError(TinyllmError):
    """A download that did not end in a complete, checked file."""


class DivergenceError(TinyllmError):
    """Training stopped because losses or gradients were not finite too many times in a row."""


class Interrupted(TinyllmError):
    """A signal ended a command after it saved its work; `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
