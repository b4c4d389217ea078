"""`tinyllm tokenizer train`, `encode`, `decode` and `count`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinyllm import text_input
from tinyllm.addresses import is_address, shown
from tinyllm.cli.console import TEXT_OR_DASH, escape_controls, note, show
from tinyllm.cli.texts import TextKey, read_text, read_text_key
from tinyllm.corpus.documents import read_documents
from tinyllm.corpus.formats import SUPPORTED, format_of
from tinyllm.corpus.sources import STANDARD_INPUT, list_sources
from tinyllm.corpus.text import DocumentRule
from tinyllm.errors import ArgumentsError, UsageError
from tinyllm.exchange.tokenizer_source import load_tokenizer
from tinyllm.storage.remote.outputs import directory_output
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import train_tokenizer

TokenizerPath = Annotated[
    Path,
    Parameter(
        name=["--tokenizer"], help="Tokenizer directory, model directory, .model file, tokenizer.json or tokenizer.bin."
    ),
]
DEFAULT_TOKENIZER = Path("tokenizer")


def train(
    *files: Annotated[
        str,
        TEXT_OR_DASH,
        Parameter(help=f"Files, folders, patterns, or - for standard input; folders: {SUPPORTED}."),
    ],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Directory to write.")],
    vocab_size: Annotated[int, Parameter(help="Number of tokens; llama2.c's small models use 512 to 4096.")] = 4096,
    documents: Annotated[
        DocumentRule, Parameter(help="End of a document in plain text; auto: <|endoftext|>, else the end of the file.")
    ] = "auto",
    text_key: TextKey = None,
    character_coverage: Annotated[
        float, Parameter(help="Fraction of all characters that get their own token; others become bytes.")
    ] = 1.0,
    max_input_mb: Annotated[int, Parameter(help="Largest text to train on, in MB; above it, lines are sampled.")] = 100,
    seed: Annotated[int, Parameter(help="Seed of the sampling of lines.")] = 0,
    special: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            allow_leading_hyphen=False,
            help="Pieces to reserve, such as chat markers. Text encodes to them only with --allow-special.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, Parameter(negative="", show_default=False, help="Replace an existing tokenizer.")
    ] = False,
) -> None:
    """Train a SentencePiece BPE tokenizer on text files.

    The same files and options give the same bytes. Writes SentencePiece's tokenizer.model and
    tokenizer.vocab, and Hugging Face's tokenizer.json and tokenizer_config.json.

    For example:

      tinyllm tokenizer train stories.txt --vocab-size 4096 -o tokenizer
      tinyllm tokenizer train chats.txt -o tokenizer --special "<|user|>" "<|end|>"
    """
    if max_input_mb < 1:
        raise UsageError(f"--max-input-mb is {max_input_mb}; at least 1 is needed")
    found = read_documents(files, documents=documents, text_key=read_text_key(text_key), note=note)
    texts = (document.text for document in found)
    with directory_output(output, "tokenizer", overwrite=overwrite, note=note) as (place, replaces):
        tokenizer = train_tokenizer(
            texts,
            vocab_size,
            place,
            character_coverage=character_coverage,
            max_input_bytes=max_input_mb * 1_000_000,
            seed=seed,
            special=special or (),
            overwrite=replaces,
            note=note,
        )
    note(f"{shown(output)}: {tokenizer.vocab_size} tokens, fingerprint {tokenizer.fingerprint[:12]}")


def encode(
    text: Annotated[
        str | None, TEXT_OR_DASH, Parameter(help="Text to encode, FILE:path, or - for standard input.")
    ] = None,
    /,
    *,
    file: Annotated[Path | None, Parameter(help="Encode this UTF-8 file, without its last newline.")] = None,
    tokenizer: TokenizerPath = DEFAULT_TOKENIZER,
    bos: Annotated[bool, Parameter(negative="", show_default=False, help="Begin with the BOS token.")] = False,
    eos: Annotated[bool, Parameter(negative="", show_default=False, help="End with the EOS token.")] = False,
    allow_special: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Encode <s> or a reserved piece in the text as one token."),
    ] = False,
    pieces: Annotated[
        bool, Parameter(negative="", show_default=False, help="One token a line, with its piece.")
    ] = False,
) -> None:
    """Convert text to token ids.

    Prints the ids on one line. In pieces, ▁ is a space, and <0x0A> is a byte that no piece covers.

    For example:

      tinyllm tokenizer encode "Hello, world!" --bos --eos
      tinyllm tokenizer encode FILE:story.txt --pieces
    """
    if (text is None) == (file is None):
        raise ArgumentsError("give a text to encode, FILE:path, - for standard input, or --file PATH")
    codec = load_tokenizer(tokenizer)
    ids = codec.encode(read_text(text, file), bos, eos, allow_special=allow_special)
    if pieces:
        for id in ids:
            show(f"{id:>6}  {codec.id_to_piece(id)}")
    else:
        show(" ".join(map(str, ids)))


def decode(
    *ids: Annotated[str, TEXT_OR_DASH, Parameter(help="Token ids, or - to read them from standard input.")],
    tokenizer: TokenizerPath = DEFAULT_TOKENIZER,
) -> None:
    """Convert token ids to text.

    Control tokens such as BOS and EOS give no text; invalid UTF-8 bytes give U+FFFD.

    For example:

      tinyllm tokenizer decode 1 346 2233 4010 1475 4021 2
    """
    words = [
        word
        for item in ids
        for word in (text_input.read_standard_input() if item == "-" else item).replace(",", " ").split()
    ]
    if not words:
        raise ArgumentsError("give token ids to decode, or - to read them from standard input")
    show(load_tokenizer(tokenizer).decode([_parse_id(word) for word in words]))


def count(
    *inputs: Annotated[
        str, TEXT_OR_DASH, Parameter(help="One text, or files, folders, patterns, - for standard input.")
    ],
    tokenizer: TokenizerPath = DEFAULT_TOKENIZER,
    documents: Annotated[DocumentRule, Parameter(help="End of a document in plain text.")] = "auto",
    text_key: TextKey = None,
) -> None:
    """Count words and tokens of texts and files.

    Words are separated by whitespace. BOS and EOS are not counted.

    For example:

      tinyllm tokenizer count stories.txt
    """
    if not inputs:
        raise ArgumentsError("give a text or files to count")
    codec = load_tokenizer(tokenizer)
    if len(inputs) == 1 and _is_text(inputs[0]):
        _print_counts([("text", 1, *_count([text_input.read_argument(inputs[0], "the text")], codec))], "text")
        return
    rows: list[Counts] = []
    key = read_text_key(text_key)
    for source in list_sources(inputs, note):
        texts = [found.text for found in read_documents([source], documents=documents, text_key=key, note=note)]
        rows.append((str(source), len(texts), *_count(texts, codec)))
    if len(rows) > 1:
        num_documents, words, tokens, num_bytes = (sum(column) for column in list(zip(*rows, strict=True))[1:])
        rows.append(("together", num_documents, words, tokens, num_bytes))
    _print_counts(rows, "file")


Counts = tuple[str, int, int, int, int]


def _count(texts: Iterable[str], codec: Tokenizer) -> tuple[int, int, int]:
    """Words, tokens and UTF-8 bytes."""
    words = tokens = num_bytes = 0
    for text in texts:
        words += len(text.split())
        tokens += codec.num_tokens(text)
        num_bytes += len(text.encode())
    return words, tokens, num_bytes


def _print_counts(rows: list[Counts], what: str) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(what, overflow="fold")
    for title in ("documents", "words", "tokens", "tokens/word", "bytes/token"):
        table.add_column(title, justify="right")
    for name, num_documents, words, tokens, num_bytes in rows:
        per_word, per_token = tokens / max(1, words), num_bytes / max(1, tokens)
        table.add_row(
            Text(escape_controls(name)),
            f"{num_documents:,}",
            f"{words:,}",
            f"{tokens:,}",
            f"{per_word:.2f}",
            f"{per_token:.2f}",
        )
    # If stdout is no terminal, names are not folded: a program reads the table.
    Console(highlight=False, width=None if sys.stdout.isatty() else 500).print(table)


def _is_text(item: str) -> bool:
    """Whether an argument is a text: no file of this name exists, and it does not look like a file name."""
    if (
        item == str(STANDARD_INPUT)
        or is_address(item)
        or (len(item) < 4096 and "\0" not in item and Path(item).exists())
    ):
        return False
    looks_like_name = not any(character.isspace() for character in item) and (
        "/" in item or "*" in item or format_of(item) is not None
    )
    return not looks_like_name


def _parse_id(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UsageError(f"{word!r} is not a token id; ids are whole numbers") from None
