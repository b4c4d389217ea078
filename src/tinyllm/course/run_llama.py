"""`python run_llama.py --option NAME`: the course's program, one option a module, loaded when it is called.

This module knows the options and finds the one that is meant; what each does stands where `OPTIONS` says.
"""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from cyclopts import App

from tinyllm.cli.app import call_app, run_command
from tinyllm.course.words import RUN_LLAMA_FLAGS, translated, with_flags
from tinyllm.errors import ArgumentsError

OPTIONS = {
    "generate": ("tinyllm.course.run_llama_generate:generate", "Continue a text at several temperatures."),
    "prompt": (
        "tinyllm.course.run_llama_classify:prompt",
        "Classify sentences by what the model expects after a question.",
    ),
    "finetune": ("tinyllm.course.run_llama_classify:finetune", "Train a classifier of sentences from the model."),
}
DEFAULT_OPTION = "generate"
SCRIPT = "python run_llama.py"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one option and ends the process, as the `tinyllm` command does."""
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
        raise ArgumentsError(f"--option {option} does not exist; it can be {', '.join(OPTIONS)}{near}")
    module, _, name = OPTIONS[option][0].partition(":")
    app = App(
        name=f"{SCRIPT} --option {option}",
        version_flags=(),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        help_format="plaintext",
    )
    app.default(getattr(import_module(module), name))
    with translated(lambda message: with_flags(message, RUN_LLAMA_FLAGS)):
        call_app(app, rest)


def take_option(tokens: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `--option`, None where it is not there, and the other tokens.

    Raises ArgumentsError where the option stands twice, or without a value.
    """
    rest, options = list(tokens), []
    for place, token in enumerate(tokens):
        name, equals, value = token.partition("=")
        if name != "--option":
            continue
        if not equals and place + 1 == len(tokens):
            raise ArgumentsError(f"--option has no value; it can be {', '.join(OPTIONS)}")
        options.append(value if equals else tokens[place + 1])
        rest[place : place + (1 if equals else 2)] = []
    if len(options) > 1:
        raise ArgumentsError(f"--option is given {len(options)} times: {', '.join(options)}; one run does one thing")
    return (options[0] if options else None), rest


def _program(tokens: Sequence[str]) -> str:
    """How the command line begins, for a pointer to the help: with the option, where there is a known one."""
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
            f"Without --option it is {DEFAULT_OPTION}. Flags of one: {SCRIPT} --option NAME --help",
        ]
    )
