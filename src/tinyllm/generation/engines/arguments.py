"""Checks of the arguments of an engine: compiled code would read foreign memory for a wrong number."""

from collections.abc import Sequence

import numpy as np

from tinyllm.generation.engines.protocol import Tokens


def check_tokens(tokens: Tokens, vocab_size: int) -> None:
    """Raises ValueError unless all `tokens`, at least one, are ids from 0 to `vocab_size` - 1."""
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        wrong = next(int(token) for token in tokens.flat if not 0 <= token < vocab_size)
        raise ValueError(f"token {wrong} is not one of the {vocab_size} ids of the vocabulary, 0 to {vocab_size - 1}")


def check_texts(texts: Sequence[Tokens] | Tokens, vocab_size: int) -> None:
    """Raises ValueError if there is no text, a text is empty, or a token is outside the vocabulary."""
    if not len(texts) or not all(len(text) for text in texts):
        raise ValueError("there is no text to read, or one of the texts is empty")
    check_tokens(np.concatenate(texts), vocab_size)


def check_layers(layers: Sequence[int], num_layers: int) -> None:
    """Raises ValueError unless all `layers` are from 0 (the embedding) to `num_layers`."""
    for layer in layers:
        if not 0 <= layer <= num_layers:
            raise ValueError(f"layer {layer} is not from 0, the embedding, to {num_layers}")
