"""Tokens as the page shows them: id, text, and the bytes of a token that is no whole character."""

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
