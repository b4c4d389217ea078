"""A tokenizer of any size, for models with random weights."""

import struct

from tinyllm.model_dir import bundled_model, read_tokenizer
from tinyllm.tokenizer.codec import Tokenizer


def wide_tokenizer(vocab_size: int) -> Tokenizer:
    """The bundled tokenizer with pieces that occur in no text: GGUF needs one for each row of the embedding."""
    content, tokenizer = bytearray(), read_tokenizer(bundled_model())
    for id in range(tokenizer.vocab_size, vocab_size):
        text = f"<unused {id}>".encode()
        # SentencePiece's protobuf: field 1 of the model is a piece, of which 1 is the text and 2 the score.
        piece = bytes([0x0A, len(text)]) + text + b"\x15" + struct.pack("<f", -id)
        content += bytes([0x0A, len(piece)]) + piece
    return Tokenizer.from_bytes(tokenizer.model_proto + bytes(content), "wide.model")
