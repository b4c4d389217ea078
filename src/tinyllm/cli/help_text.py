"""The help of a command from its docstring: a terminal of any width wraps its paragraphs.

Without this step, the line breaks of the source would stay, and a narrow terminal would add its own.
"""

import inspect
import re
from importlib import import_module


def command_help(target: str) -> str:
    """The help of the command `MODULE:FUNCTION`, which is imported."""
    module, _, function = target.partition(":")
    return unwrap(inspect.getdoc(getattr(import_module(module), function)) or "")


def unwrap(text: str) -> str:
    """`text` with each paragraph on one line; indented lines, such as examples, stay as they are."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text)
