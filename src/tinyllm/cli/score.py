"""`tinyllm score`: bits per byte and perplexity of texts under a model, and the log-probability of each token."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinyllm import text_input
from tinyllm.cli.console import TEXT_OR_DASH, escape_controls, note, show_json
from tinyllm.cli.paths import expand_home
from tinyllm.errors import ArgumentsError, InputError
from tinyllm.generation.scoring import Score, Total, add_up
from tinyllm.loading import load

STYLES = ((-0.5, "green"), (-3.0, "yellow"), (-math.inf, "red"))
"""Colour of a token whose log-probability is at least the number."""


def score(
    model: Annotated[Path, Parameter(help="Model directory, run directory or another tool's model.")],
    /,
    *files: Annotated[str, TEXT_OR_DASH, Parameter(help="UTF-8 text files, or - for standard input.")],
    tokens: Annotated[
        bool, Parameter(help="Show the log-probability of each token.", negative="", show_default=False)
    ] = False,
    as_json: Annotated[
        bool, Parameter(name="--json", help="Write the same as JSON.", negative="", show_default=False)
    ] = False,
    tokenizer: Annotated[
        Path | None, Parameter(help="For a model file with no tokenizer inside or beside it: .model or tokenizer.bin.")
    ] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    weights: Annotated[
        Literal["auto", "fp32", "bf16", "int8"],
        Parameter(help="Precision of the weights on a CPU: fp32 (auto) is exact, int8 is fastest."),
    ] = "auto",
) -> None:
    """Show how likely texts are under a model: bits per byte and perplexity.

    Each file is one text, without its last newline; its first token follows BOS. A text longer than the context is read
    in windows that overlap by half, and each token is scored once. Bits per byte compare models of any vocabulary.

    For example:

      tinyllm score runs/mine story.txt poem.txt
      tinyllm score runs/mine story.txt --tokens
      echo "Once upon a time" | tinyllm score runs/mine - --json
    """
    if not files:
        raise ArgumentsError("give text files to score, or - for standard input")
    texts = [_read(name) for name in files]
    generator = load(model, tokenizer=tokenizer, device=device, weights=weights, note=note)
    scores = generator.score(texts)
    if as_json:
        show_json(describe(str(model), files, scores, tokens))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 500)
    if tokens:
        for name, found in zip(files, scores, strict=True):
            console.print(_token_lines(name, found))
    console.print(_table(files, scores))


def describe(model: str, files: Sequence[str], scores: Sequence[Score], tokens: bool) -> dict[str, Any]:
    """The object that --json writes; with `tokens`, the ids, pieces and log-probabilities too."""
    described = []
    for name, found in zip(files, scores, strict=True):
        entry: dict[str, Any] = {"file": name, **_figures(add_up([found]))}
        if tokens:
            entry |= {
                "token_ids": found.token_ids,
                "pieces": found.pieces,
                "log_probabilities": found.log_probabilities,
            }
        described.append(entry)
    return {"model": model, "engine": scores[0].engine, "files": described, "total": _figures(add_up(scores))}


def _read(name: str) -> str:
    """The text of a file or of standard input. Raises InputError if it is empty, unreadable or not UTF-8."""
    text = text_input.read_standard_input() if name == "-" else text_input.read_file(expand_home(name))
    if not text:
        raise InputError(f"{'standard input' if name == '-' else name} is empty; give some text")
    return text


def _figures(total: Total) -> dict[str, Any]:
    """The figures as JSON names them; an infinite perplexity is None."""
    return {
        "bytes": total.num_bytes,
        "tokens": total.num_tokens,
        "log_probability": total.log_probability,
        "bits_per_byte": total.bits_per_byte,
        "perplexity": total.perplexity if math.isfinite(total.perplexity) else None,
    }


def _table(files: Sequence[str], scores: Sequence[Score]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("file", overflow="fold")
    for title in ("bytes", "tokens", "bits/byte", "perplexity"):
        table.add_column(title, justify="right")
    rows = [(name, add_up([found])) for name, found in zip(files, scores, strict=True)]
    if len(rows) > 1:
        rows.append(("together", add_up(scores)))
    for name, total in rows:
        table.add_row(
            Text(escape_controls(text_input.encodable(name))),
            f"{total.num_bytes:,}",
            f"{total.num_tokens:,}",
            f"{total.bits_per_byte:.3f}",
            f"{total.perplexity:,.2f}" if math.isfinite(total.perplexity) else "infinite",
        )
    return table


def _token_lines(name: str, found: Score) -> Text:
    """One line for each token: log-probability in nats and piece, coloured on a terminal."""
    lines = Text(f"{escape_controls(text_input.encodable(name))}: nats and piece of each token\n")
    for nats, piece in zip(found.log_probabilities, found.pieces, strict=True):
        style = next(style for limit, style in STYLES if nats >= limit)
        lines.append(f"{nats:9.3f}  {escape_controls(piece)}\n", style)
    return lines
