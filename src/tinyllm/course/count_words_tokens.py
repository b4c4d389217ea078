"""`python count_words_tokens.py`: counts words and tokens of one text, as in the course's document.

For several files, in a table, use `tinyllm tokenizer count`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, Parameter

from tinyllm.cli.app import call_app, run_command
from tinyllm.cli.console import TEXT_OR_DASH, note, show
from tinyllm.cli.texts import read_text
from tinyllm.errors import ArgumentsError, InputError
from tinyllm.exchange.tokenizer_source import load_tokenizer
from tinyllm.model_dir import bundled_model

DOCUMENT_TEXT = (
    "a man of few words, but when he speaks, you listen. He is a master of his craft, and he brings a level of "
    "intensity to the role that is unmatched. The action sequences are breathtaking, and the story is engaging. "
    "I would highly recommend this film to anyone who enjoys a good thriller."
)
LLAMA2_PLACES = ("tokenizer.model", "llama2-tokenizer/tokenizer.model", "llama2.c/tokenizer.model")
"""Usual places of the Llama 2 tokenizer, relative to the current folder and to the script's."""
SCRIPT = "count_words_tokens.py"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Counts words and tokens and exits the process, as the `tinyllm` command does."""
    program = f"python {SCRIPT}"
    app = App(
        name=program,
        version_flags=(),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        help_format="plaintext",
    )
    app.default(count)
    run_command(lambda tokens: call_app(app, tokens), sys.argv[1:] if arguments is None else arguments, program)


def count(
    text: Annotated[
        str | None,
        TEXT_OR_DASH,
        Parameter(help="Text to count, or - for standard input; default: the text of the document."),
    ] = None,
    /,
    *,
    file: Annotated[Path | None, Parameter(help="Count this UTF-8 file instead.")] = None,
    tokenizer: Annotated[
        Path | None,
        Parameter(
            help="A .model file, a llama2.c tokenizer.bin, or a directory with one; default: Llama 2's tokenizer.model "
            "in this folder, else the tokenizer of the bundled model."
        ),
    ] = None,
) -> None:
    """Count the words and tokens of a text.

    Words are separated by whitespace; BOS and EOS are not counted. The document's numbers, 54 and 71, come from the
    Llama 2 tokenizer. Without it, the bundled tokenizer is used, and one line says so.

    For example:

      python count_words_tokens.py
      python count_words_tokens.py "Once upon a time" --tokenizer tok4096.model
      python count_words_tokens.py --file story.txt
    """
    if text is not None and file is not None:
        raise ArgumentsError("give a text or --file, not both")
    if tokenizer is not None and not tokenizer.exists():
        raise InputError(f"tokenizer {tokenizer} does not exist; name one: --tokenizer FILE")
    counted = DOCUMENT_TEXT if text is None and file is None else read_text(text, file)
    found = tokenizer or find_llama2_tokenizer()
    codec = load_tokenizer(found or bundled_model())
    num_tokens = codec.num_tokens(counted)
    show(f"文本: {counted}")
    print(f"单词数: {len(counted.split())}")
    print(f"Token数: {num_tokens}")
    if found is None:
        note(
            f"counted with the bundled tokenizer of {codec.vocab_size:,} tokens; for the document's 71, put the "
            "Llama 2 tokenizer.model (of karpathy/llama2.c) into this folder, or name it: --tokenizer FILE"
        )


def find_llama2_tokenizer() -> Path | None:
    """The first existing file of LLAMA2_PLACES, in the current folder or next to the script; None if there is none."""
    folders = (Path(), Path(sys.argv[0]).parent)
    return next((path for folder in folders for place in LLAMA2_PLACES if (path := folder / place).is_file()), None)
