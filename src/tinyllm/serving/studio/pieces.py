"""Tokens as the page shows them: id, text, and the bytes of a token that is no whole character."""

from collections.abc import Iterable, Sequence
from typing import Any

from tinyllm.tokenizer.codec import Tokenizer

UNFINISHED = "\ufffd"
"""The text of a token whose bytes are only a part of a character."""


def piece_fields(tokenizer: Tokenizer, id: int) -> dict[str, Any]:
    """`id` and `piece` of a token, the text that it adds; `bytes` in hexadecimal if it is no whole character.

    A control token is shown by its name, such as `<s>`. Raises InputError for an unknown id.
    """
    content = tokenizer.piece_bytes(id)
    if not content:
        return {"id": id, "piece": tokenizer.id_to_piece(id)}
    try:
        return {"id": id, "piece": content.decode()}
    except UnicodeDecodeError:
        return {"id": id, "piece": UNFINISHED, "bytes": content.hex()}


def text_fields(tokenizer: Tokenizer, ids: Sequence[int]) -> list[dict[str, Any]]:
    """The fields of the tokens of a text from its beginning: without the space that encoding puts before a text."""
    fields = [piece_fields(tokenizer, id) for id in ids]
    decoder = tokenizer.stream()
    for each in fields:
        shown = decoder.push(each["id"])
        if tokenizer.piece_bytes(each["id"]):
            if each["piece"] == f" {shown}":
                each["piece"] = shown
            break
    return fields


def rival_fields(tokenizer: Tokenizer, rivals: Iterable[tuple[int, float]]) -> list[dict[str, Any]]:
    """The fields of tokens with their log-probabilities."""
    return [{**piece_fields(tokenizer, id), "logprob": nats} for id, nats in rivals]
