"""`python count_words_tokens.py`: words and tokens of one text, as the course's document shows them.

For many files at once, as a table, there is `tinyllm tokenizer count`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, Parameter

from tinyllm.cli.app import run_command
from tinyllm.cli.console import show
from tinyllm.cli.texts import read_text
from tinyllm.errors import InputError, UsageError
from tinyllm.exchange.tokenizer_source import load_tokenizer

DOCUMENT_TEXT = (
    "a man of few words, but when he speaks, you listen. He is a master of his craft, and he brings a level of "
    "intensity to the role that is unmatched. The action sequences are breathtaking, and the story is engaging. "
    "I would highly recommend this film to anyone who enjoys a good thriller."
)
DEFAULT_TOKENIZER = Path("tokenizer.model")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Counts and ends the process, as the `tinyllm` command does."""
    app = App(
        name="python count_words_tokens.py",
        version_flags=(),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        help_format="plaintext",
    )
    app.default(count)
    run_command(app, sys.argv[1:] if arguments is None else arguments)


def count(
    text: Annotated[
        str | None,
        Parameter(allow_leading_hyphen=True, help="Text to count, or - for standard input; default: the document's."),
    ] = None,
    /,
    *,
    file: Annotated[Path | None, Parameter(help="Count this UTF-8 file instead.")] = None,
    tokenizer: Annotated[
        Path, Parameter(help="A .model file, a llama2.c tokenizer.bin, or a directory with one.")
    ] = DEFAULT_TOKENIZER,
) -> None:
    """Count the words and tokens of a text.

    Words are what whitespace separates; BOS and EOS are not counted. The numbers of the document, 54 and 71, are those
    of the Llama 2 tokenizer.

    For example:

      python count_words_tokens.py --tokenizer tokenizer.model
      python count_words_tokens.py "Once upon a time" --tokenizer tok4096.model
      python count_words_tokens.py --file story.txt
    """
    if text is not None and file is not None:
        raise UsageError("give a text or --file, not both")
    if not tokenizer.exists():
        raise InputError(f"tokenizer {tokenizer} does not exist; name one: --tokenizer FILE")
    counted = DOCUMENT_TEXT if text is None and file is None else read_text(text, file)
    num_tokens = load_tokenizer(tokenizer).num_tokens(counted)
    show(f"文本: {counted}")
    print(f"单词数: {len(counted.split())}")
    print(f"Token数: {num_tokens}")
