"""The error line for wrong usage: the wrong word, the nearest valid one, and a pointer to the command's help.

Commands (cyclopts) and scripts (argparse) share the format. Commands themselves report values out of range.
"""

import argparse
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn

from cyclopts import (
    App,
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from tinyllm.cli.console import UnknownOption
from tinyllm.errors import ArgumentsError

LEAST_LIKENESS = 0.65
"""Smallest similarity of two spellings, as of difflib."""
NUM_SUGGESTIONS = 3
LEAST_WORD = 4
"""Shortest word, in letters, that is searched in the help of other options; shorter words match everywhere."""
FLAG = re.compile(r"--?[A-Za-z][\w.-]*")


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    names: tuple[str, ...]
    help: str = ""


def describe_usage(error: CycloptsError, program: str) -> str:
    """One line for `error`, with a pointer to the called command's help.

    `program` is the beginning of the command line: `tinyllm`, or `python run_llama.py --option generate`.
    """
    command = " ".join([program, *(error.command_chain or ())])
    return f"{_describe(error, command)} (see {command} --help)"


def unknown_option(option: str, options: Iterable[Option]) -> str:
    """A line that names an unknown option and the nearest known ones."""
    name = option.partition("=")[0]
    return _suggest(name, near_options(name, options))


def near_options(option: str, options: Iterable[Option]) -> list[str]:
    """At most three options nearest to `option`: by spelling, by a common word, or by their help.

    A single letter matches options with a word that begins with it: `-n` matches `--num-samples`.
    """
    helps = {name: each.help for each in options for name in each.names if not name.startswith("--no-")}
    words = set(_words(option))
    if len(option.lstrip("-")) == 1:
        initials = {name: [word[:1] for word in _words(name)] for name in helps}
        first = [name for name in helps if initials[name][0] in words]
        return (first + [name for name in helps if words & set(initials[name][1:])])[:NUM_SUGGESTIONS]
    if longer := [name for name in helps if words <= set(_words(name))]:
        return longer[:NUM_SUGGESTIONS]
    if begun := [name for name in helps if _begins(_plain(name), _plain(option))]:
        return begun[:NUM_SUGGESTIONS]
    if close := difflib.get_close_matches(_plain(option), map(_plain, helps), n=1, cutoff=LEAST_LIKENESS):
        return [name for name in helps if _plain(name) == close[0]][:1]
    words = {word for word in words if len(word) >= LEAST_WORD}
    if common := [name for name in helps if words & set(_words(name))]:
        return common[:NUM_SUGGESTIONS]
    by_help = [name for name, text in helps.items() if words & set(re.findall(r"[a-z]+", text.lower()))]
    return by_help[:NUM_SUGGESTIONS]


class ScriptParser(argparse.ArgumentParser):
    """An argparse parser that raises ArgumentsError with one line and suggestions."""

    synonyms: Mapping[str, str] = MappingProxyType({})
    """Unknown option -> what the script has in its place, such as `--resume` -> `--init_from=resume`."""

    def parse_args(self, tokens: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """The parsed arguments. Raises ArgumentsError naming the first wrong word."""
        arguments, extra = self.parse_known_args(tokens)
        wrong = next((token for token in extra if FLAG.match(token)), None)
        if wrong is not None:
            known = self.synonyms.get(wrong.partition("=")[0])
            self.error(_suggest(wrong.partition("=")[0], [known]) if known else unknown_option(wrong, self._options()))
        if extra:
            self.error(f"unexpected argument {extra[0]!r}: {self.prog} takes options alone")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Raises ArgumentsError with `message`."""
        raise ArgumentsError(message)

    def _options(self) -> list[Option]:
        return [Option(tuple(action.option_strings), action.help or "") for action in self._actions]


def _suggest(option: str, near: list[str]) -> str:
    return f"unknown option {option}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def _describe(error: CycloptsError, command: str) -> str:
    options = _options_of(error)
    match error:
        case CycloptsError(__cause__=UnknownOption() as cause):
            return unknown_option(cause.option, options)
        case UnknownOptionError() if "-" in (error.token.keyword, error.token.value):
            return _unexpected(error, ["-"], command)
        case UnknownOptionError():
            return unknown_option(error.token.keyword or error.token.value, options)
        case UnknownCommandError(unused_tokens=[token, *_], app=App() as app) if token.startswith("-"):
            return unknown_option(token, [Option((*app.help_flags, *app.version_flags))])
        case UnusedCliTokensError():
            return _unexpected(error, list(error.unused_tokens or []), command)
        case CoercionError(argument=Argument() as argument) if _section_keys(argument.name, argument.hint):
            key = _section_keys(argument.name, argument.hint)[0]
            return f"{argument.name} is a section of settings; give them by name, such as {argument.name}.{key} VALUE"
        case MissingArgumentError():
            return _describe_missing(error, options, command)
        case _:
            return " ".join(str(error).split())


def _describe_missing(error: MissingArgumentError, options: list[Option], command: str) -> str:
    """The line for a missing value or argument; a misspelled option that may be the argument is named first."""
    assert error.argument is not None
    name = error.keyword or error.argument.name
    if error.keyword is not None or error.argument.tokens:
        return f"{name} needs a value"
    known = {name for option in options for name in option.names}
    typed = [token.partition("=")[0] for token in error.root_input_tokens or []]
    for token in typed:
        if FLAG.fullmatch(token) and token not in known and token.split(".")[0] not in known:
            near = near_options(token, options)
            return _suggest(token, [name] if name in near else near)
    words = [token for token in error.unused_tokens or [] if not token.startswith("-")]
    if words and name.startswith("-"):
        return f"{_unexpected(error, words, command)}; did you mean {name} {words[0]}?"
    help_text = (error.argument.parameter.help or "no help").rstrip(".")
    return f"{name} is missing ({help_text})"


def _unexpected(error: CycloptsError, words: list[str], command: str) -> str:
    names = [argument.name for argument in _collection(error) if not argument.field_info.is_keyword]
    takes = f"takes {' and '.join(names)} alone" if names else "takes options alone"
    return f"unexpected argument {words[0]!r}: {command} {takes}"


def _options_of(error: CycloptsError) -> list[Option]:
    """The options of the called command, with the settings of its sections (`--model.hidden_size`)."""
    options = []
    for argument in _collection(error):
        names = tuple(name for name in argument.names if name.startswith("-"))
        options.append(Option(names, argument.parameter.help or ""))
        options += [Option((f"{name}.{key}",)) for name in names for key in _section_keys(name, argument.hint)]
    return options


def _section_keys(option: str, hint: object) -> list[str]:
    if "dict" not in str(hint):
        return []
    from tinyllm.config import Config

    section = Config.model_fields.get(option.lstrip("-"))
    return list(getattr(section.annotation, "model_fields", {})) if section else []


def _collection(error: CycloptsError) -> "list[Argument]":
    """The arguments of the called command; empty for a group of commands."""
    if error.app is None or error.app.default_command is None:
        return []
    return [argument for argument in error.app.assemble_argument_collection() if argument.parse]


def _words(option: str) -> list[str]:
    return re.split(r"[-_.]", option.lstrip("-").lower())


def _begins(name: str, option: str) -> bool:
    """Whether one is the beginning of the other."""
    return name.startswith(option) or option.startswith(name)


def _plain(option: str) -> str:
    return option.replace("_", "-").lower()
