"""Chat templates: found as transformers finds them, and rendered in a sandbox with a bound on time and size.

A template comes with a model, often from someone else. Jinja's sandbox denies it files and Python's internals, and the
bounds of this module keep it from running forever. `template_process` ends what these bounds cannot reach.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError, TemplateRuntimeError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tinyllm.errors import FormatError
from tinyllm.json_file import read_json_object

TEMPLATE_NAME, CONFIG_NAME, KEY = "chat_template.jinja", "tokenizer_config.json", "chat_template"
RENDER_SECONDS = 1.0
"""Longest processor time of one rendering. A usual conversation takes a few milliseconds."""
MOST_CHARACTERS = 2**22
"""Characters of a rendered text, and items of every value on the way to it."""
SHOWN_CHARACTERS = 500
"""Characters of a template's own error that a message repeats."""


def read_template(path: Path | None) -> str | None:
    """The chat template of the model directory `path`; None without one. Raises FormatError if it is not UTF-8."""
    if path is None or not path.is_dir():
        return None
    if (path / TEMPLATE_NAME).is_file():
        try:
            return (path / TEMPLATE_NAME).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            reason = f"{path / TEMPLATE_NAME} is not UTF-8 text (byte {error.start}); correct it or remove it"
            raise FormatError(reason) from None
    if not (path / CONFIG_NAME).is_file():
        return None
    found = read_json_object(path / CONFIG_NAME).get(KEY)
    if isinstance(found, list):  # named templates; the one for conversations is `default`
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


@lru_cache(maxsize=16)
def compile_template(template: str, owner: str = "the model") -> Template:
    """The template with the tags, settings and functions that transformers gives it.

    Raises FormatError, which names the `owner`, for a text that is no template.
    """
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **({"ensure_ascii": False} | options))
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = time.strftime
    try:
        return environment.from_string(template)
    except TemplateSyntaxError as error:
        place, reason = f"line {error.lineno}: ", error.message
    except (TemplateError, RecursionError, SyntaxError, ValueError, MemoryError) as error:
        place, reason = "", str(error)
    raise FormatError(f"the chat template of {owner} cannot be compiled: {place}{reason}; correct it or remove it")


def render_template(template: Template, messages: Sequence[Mapping[str, str]], tokens: Mapping[str, str]) -> str:
    """The text of a conversation up to the assistant's answer. `tokens` are special tokens, such as `bos_token`.

    Raises ValueError with the reason if the template refuses the messages, fails, or exceeds a bound.
    """
    pieces, num_characters = [], 0
    try:
        with _bounded():
            for piece in template.generate(messages=messages, add_generation_prompt=True, **tokens):
                pieces.append(piece)
                num_characters += len(piece)
                _check_size(num_characters)
    except RecursionError:
        raise ValueError("it calls itself too often") from None
    except MemoryError:
        raise ValueError("it needs too much memory") from None
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise ValueError(" ".join(str(error)[:SHOWN_CHARACTERS].split())) from None
    return "".join(pieces)


@contextmanager
def _bounded() -> Iterator[None]:
    """Bounds the Python code that this thread runs inside: its processor time, and the size of what functions return.

    A thread cannot be ended from outside, so the code is traced. A template's loops, macros and filters all run as
    Python code.
    """
    before = sys.gettrace()
    sys.settrace(_Bounds())
    try:
        yield
    finally:
        sys.settrace(before)


class _Bounds:
    """A trace function, which Python calls for each line, call and return."""

    def __init__(self) -> None:
        self._end = time.thread_time() + RENDER_SECONDS

    def __call__(self, frame: FrameType, event: str, value: Any) -> Self:  # noqa: ARG002 (Python's signature)
        if time.thread_time() > self._end:
            raise TemplateRuntimeError(f"it runs for longer than {RENDER_SECONDS:g} s")
        if event == "return" and isinstance(value, str | list | tuple):
            _check_size(len(value))
        return self


def _check_size(size: int) -> None:
    if size > MOST_CHARACTERS:
        raise TemplateRuntimeError(f"it makes a text or list of more than {MOST_CHARACTERS:,} characters or items")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which one operation cannot make a value that is much larger than its operands."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`left` times or to the power of `right`."""
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(other, int):
                _check_size(len(one) * other)
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_size(left.bit_length() * right)
        return super().call_binop(context, operator, left, right)


class _GenerationBlock(Extension):
    """`{% generation %}`, with which a template marks the assistant's words for training; here it has no effect."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's declaration)

    def parse(self, parser: Parser) -> nodes.Node:
        """The statements of the block."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
