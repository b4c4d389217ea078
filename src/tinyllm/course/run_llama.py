"""`python run_llama.py --option NAME`: the course's program; the module of the option is imported on use.

This module selects the option; the modules in `OPTIONS` implement them.
"""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from cyclopts import App

from tinyllm.cli.app import call_app, run_command
from tinyllm.cli.help_text import command_help
from tinyllm.course.words import RUN_LLAMA_FLAGS, translated, with_flags
from tinyllm.errors import ArgumentsError

OPTIONS = {
    "generate": ("tinyllm.course.run_llama_generate:generate", "Continue a text at several temperatures."),
    "prompt": (
        "tinyllm.course.run_llama_classify:prompt",
        "Classify sentences by the most probable label after a question.",
    ),
    "finetune": ("tinyllm.course.run_llama_classify:finetune", "Train a classifier of sentences from the model."),
}
DEFAULT_OPTION = "generate"
SCRIPT = "python run_llama.py"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one option and exits the process, as the `tinyllm` command does."""
    tokens = sys.argv[1:] if arguments is None else arguments
    run_command(_run, tokens, _program(tokens))


def _run(tokens: Sequence[str]) -> None:
    option, rest = take_option(tokens)
    if option is None and any(token in ("--help", "-h") for token in rest):
        print(_overview())
        return
    option = option or DEFAULT_OPTION
    if option not in OPTIONS:
        close = difflib.get_close_matches(option, OPTIONS, n=1)
        near = f"; did you mean {close[0]}?" if close else ""
        raise ArgumentsError(f"--option {option} does not exist; choose {', '.join(OPTIONS)}{near}")
    target = OPTIONS[option][0]
    module, _, name = target.partition(":")
    app = App(
        name=f"{SCRIPT} --option {option}",
        version_flags=(),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        help_format="plaintext",
        help=command_help(target),
    )
    app.default(getattr(import_module(module), name))
    with translated(lambda message: with_flags(message, RUN_LLAMA_FLAGS)):
        call_app(app, rest)


def take_option(tokens: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `--option`, or None, and the other tokens.

    Raises ArgumentsError if the option is given twice or without a value.
    """
    rest, options = list(tokens), []
    for place, token in enumerate(tokens):
        name, equals, value = token.partition("=")
        if name != "--option":
            continue
        if not equals and place + 1 == len(tokens):
            raise ArgumentsError(f"--option has no value; choose {', '.join(OPTIONS)}")
        options.append(value if equals else tokens[place + 1])
        rest[place : place + (1 if equals else 2)] = []
    if len(options) > 1:
        raise ArgumentsError(f"--option is given {len(options)} times: {', '.join(options)}; give one option a run")
    return (options[0] if options else None), rest


def _program(tokens: Sequence[str]) -> str:
    """The start of the command line in messages, with the option if it is known."""
    named = [name for name in OPTIONS if any(token in (name, f"--option={name}") for token in tokens)]
    return f"{SCRIPT} --option {named[0]}" if named else SCRIPT


def _overview() -> str:
    width = max(map(len, OPTIONS))
    lines = [f"  --option {name:<{width}}  {text}" for name, (_, text) in OPTIONS.items()]
    return "\n".join(
        [
            f"Usage: {SCRIPT} [--option NAME] [flags]",
            "",
            *lines,
            "",
            f"The default is --option {DEFAULT_OPTION}. Flags of an option: {SCRIPT} --option NAME --help",
        ]
    )
