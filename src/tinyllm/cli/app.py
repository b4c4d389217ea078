"""The command tree, and the error line and exit code of a failed command.

Commands are import paths, loaded when they are called, so that `tinyllm --help` does not load torch.
A `TinyllmError` gives one line on stderr and an exit code; `--debug` adds the traceback.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from cyclopts import App, CycloptsError, Parameter, Token, convert

from tinyllm.cli.console import STANDARD_OUTPUT, give_up_output, note, plain_words, standard_streams
from tinyllm.cli.flags import in_flags
from tinyllm.cli.help_text import command_help
from tinyllm.cli.paths import expand_home
from tinyllm.errors import ArgumentsError, TinyllmError
from tinyllm.machine import launcher
from tinyllm.version import __version__

PROGRAM = "tinyllm"
COMMANDS = {
    "demo": ("tinyllm.cli.demo:demo", "Write stories, train a tokenizer and a model on them, and sample, in minutes."),
    "fit": ("tinyllm.cli.fit:fit", "Train a model that fits texts, a time and this machine."),
    "prepare": ("tinyllm.cli.shards:prepare", "Turn text files into shards of token ids."),
    "train": ("tinyllm.cli.train:train", "Train a model on shards, or resume a run."),
    "generate": ("tinyllm.cli.generate:generate", "Continue a prompt with a model."),
    "serve": ("tinyllm.cli.serve:serve", "Serve models over HTTP, with OpenAI's interface."),
    "studio": ("tinyllm.cli.studio:studio", "Show runs, models and data of a folder in the browser."),
    "evaluate": (
        "tinyllm.cli.evaluate:evaluate",
        "Measure models side by side: bits per byte, grammar, tasks, samples.",
    ),
    "score": ("tinyllm.cli.score:score", "Show how likely texts are: bits per byte, perplexity, tokens."),
    "settings": ("tinyllm.cli.settings:settings", "List settings with default, unit and meaning; search them."),
    "info": ("tinyllm.cli.model:info", "Show parameters, bytes, FLOPs per token and shapes of a model."),
    "completion": ("tinyllm.cli.completion:completion", "Install completion of commands and flags for your shell."),
    "doctor": ("tinyllm.cli.doctor:doctor", "Check runs, shards, models and tokenizers, or whether a run will fit."),
    "import": ("tinyllm.cli.exchange:import_model", "Convert another tool's model to a model directory."),
    "export": ("tinyllm.cli.exchange:export", "Write a model in another tool's format, and compare the logits."),
    "classify train": ("tinyllm.cli.classify:train", "Train a classifier of sentences from a model."),
    "classify predict": ("tinyllm.cli.classify:predict", "Label sentences, with a classifier or zero-shot."),
    "data download": ("tinyllm.cli.data:download", "Download a corpus, with resume and checksum."),
    "data storybook": ("tinyllm.cli.data:storybook", "Write children's stories from a seeded grammar."),
    "data inspect": ("tinyllm.cli.shards:inspect", "Check shards; show counts and a decoded sample."),
    "tokenizer train": ("tinyllm.cli.tokenizer:train", "Train a SentencePiece BPE tokenizer on text files."),
    "tokenizer encode": ("tinyllm.cli.tokenizer:encode", "Convert text to token ids."),
    "tokenizer decode": ("tinyllm.cli.tokenizer:decode", "Convert token ids to text."),
    "tokenizer count": ("tinyllm.cli.tokenizer:count", "Count words and tokens of texts and files."),
}
GROUPS = {
    "classify": "Label sentences: train a classifier, predict.",
    "data": "Corpora and shards: download, write, inspect.",
    "tokenizer": "Train and use tokenizers.",
}


LONGEST_ECHO, ECHO_START = 200, 60
"""Characters of an argument that an error line repeats whole, and of the beginning of a longer one."""


def build_app(tokens: Sequence[str] = ()) -> App:
    """The command tree. Imports only the command that `tokens` name, whose help is its docstring."""
    app = App(
        name="tinyllm",
        help="Train your own small language model from raw text, and use it.",
        version=__version__,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        help_format="plaintext",
        default_parameter=Parameter(converter=convert_argument),
        help_epilogue="Start with: tinyllm demo        One command's flags: tinyllm COMMAND --help",
    )
    groups = {name: App(name=name, help=text) for name, text in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for name, (target, text) in COMMANDS.items():
        *group_name, command = name.split()
        called = list(tokens[: len(name.split())]) == name.split()
        shown = command_help(target) if called else text
        (groups[group_name[0]] if group_name else app).command(target, name=command, help=shown)
    return app


def convert_argument(type_: Any, tokens: Sequence[Token]) -> Any:
    """The value of an argument, as `cyclopts.convert` gives it; a fraction for a whole number is an error.

    Raises ValueError for it, where `cyclopts.convert` rounds 2.5 to 2.
    """
    if type_ is int or set(get_args(type_)) == {int, type(None)}:
        for token in tokens:
            if _is_fraction(token.value):
                raise ValueError(f"{token.value} is not a whole number")
    return convert(type_, tokens)


def _is_fraction(text: str) -> bool:
    try:
        return not float(text).is_integer()
    except ValueError:
        return False  # hexadecimal, or no number


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `tinyllm` command."""
    run_command(lambda tokens: call_app(build_app(tokens), tokens), sys.argv[1:] if arguments is None else arguments)


def call_app(app: App, tokens: Sequence[str]) -> object:
    """Parses one command line and calls its command; expands `~` in every path, as no shell does in --out=~/x."""
    with plain_words(tokens[tokens.index("--") + 1 :] if "--" in tokens else ()):
        command, bound, _ = app.parse_args(tokens)
    arguments = {name: _expand_home(value) for name, value in bound.arguments.items()}
    bound.arguments.update(arguments)
    return command(*bound.args, **bound.kwargs)


def _expand_home(value: object) -> object:
    if isinstance(value, Path):
        return expand_home(value)
    if isinstance(value, list | tuple):
        return type(value)(_expand_home(item) for item in value)
    return value


def run_command(command: Callable[[list[str]], object], arguments: Sequence[str], program: str = PROGRAM) -> NoReturn:
    """Runs one command and exits: 0 success, 1 failure, 2 wrong usage, 128 + n stopped by signal n.

    `--debug` is removed from the arguments and prints the traceback of an error. `program` is the beginning of the
    command line; errors of usage point to `PROGRAM --help`.
    """
    tokens = [token for token in arguments if token != "--debug"]
    try:
        with standard_streams():
            command(tokens)
    except (TinyllmError, CycloptsError, OSError, KeyboardInterrupt, MemoryError, RuntimeError) as error:
        if len(tokens) < len(arguments):
            traceback.print_exc()
        sys.exit(_report(error, tokens, program, give_up_output()))
    sys.exit(0)


def _report(error: BaseException, tokens: list[str], program: str, output_failed: bool) -> int:
    """Prints the error's line on stderr; returns the exit code. `output_failed`: stdout cannot be written."""
    match error:
        case BrokenPipeError():
            # The reader of the output stopped reading (`tinyllm ... | head`): not an error.
            return 0
        case TinyllmError():
            if not error.is_shown:
                note(f"tinyllm: {_shorten(in_flags(error), tokens)}{_pointer(error, tokens, program)}")
            return error.exit_code
        case CycloptsError():
            if launcher.local_rank():
                return 2  # The first rank of this host has the same command line.
            note(f"tinyllm: {_shorten(_describe_wrong_call(error, program), tokens)}")
            return 2
        case KeyboardInterrupt():
            note("\ntinyllm: stopped")
            return 130
        case OSError():
            place = error.filename or (STANDARD_OUTPUT if output_failed else "")
            note(f"tinyllm: {_shorten(str(place), tokens)}{': ' if place else ''}{error.strerror or error}")
            return 1
        case MemoryError() | RuntimeError():
            from tinyllm.machine.memory import describe_shortage

            if shortage := describe_shortage(error):
                note(f"tinyllm: {shortage}")
                return 1
    raise error


def _shorten(message: str, tokens: list[str]) -> str:
    """`message` with the beginning alone of each long argument that it repeats: a text may be a whole file."""
    for text in sorted({part for token in tokens for part in (token, token.partition("=")[2])}, key=len, reverse=True):
        if len(text) > LONGEST_ECHO:
            for echo in (text, repr(text)[1:-1]):
                message = message.replace(echo, f"{echo[:ECHO_START]}…")
    return message


def _pointer(error: TinyllmError, tokens: list[str], program: str) -> str:
    """A pointer to the command's help for an ArgumentsError; empty for other errors."""
    if not isinstance(error, ArgumentsError):
        return ""
    command = next((name for name in COMMANDS if name.split() == tokens[: len(name.split())]), "")
    return f" (see {' '.join([program, *command.split()] if program == PROGRAM else [program])} --help)"


def _describe_wrong_call(error: CycloptsError, program: str) -> str:
    """The error of cyclopts in one line; for an invalid section, the section's own message."""
    # Imported late: only a wrong command line needs them.
    from pydantic import ValidationError

    from tinyllm.cli.usage import describe_usage
    from tinyllm.config import wrong_setting

    if isinstance(error.__cause__, ValidationError):
        return in_flags(wrong_setting(error.__cause__))
    return describe_usage(error, program)
