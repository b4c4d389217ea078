"""Writes the ids that a real tokenizer gives to the texts below, as a test fixture that a clone can use without it.

    python tools/make_tokenizer_ids.py TOKENIZER.model NAME -o tests/fixtures/tokenizer_ids/NAME.json

The ids come from SentencePiece directly. The file also has every piece that merging produces on these texts, with id
and score. A merge that never happens cannot change an id. So a vocabulary of these pieces alone, at their places, gives
the same ids to the same texts. The tokenizer itself is not copied.
"""

import argparse
import hashlib
import json
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from tinyllm.corpus.storybook import write_stories
from tinyllm.course.count_words_tokens import DOCUMENT_TEXT
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import SPACE, PieceType

NUM_STORIES = 8
TEXTS = [
    *("Hello, world!", "Once upon a time", "cat", "the", "I don't know.", 'He said: "Let\'s go!" and went.'),
    *("", " ", "   ", " a", "a ", "  a  b   c  ", "\t\ta\tb", "\n\n a\n b \n", " \n ", "a\r\nb", "\x00\x01\x7f"),
    *("two  spaces, and   three", "  before", "after  ", "(a) [b] {c} <d>", "if x:\n    return y\n\telse z"),
    *("1234567890 12,345.67", "3.14159", "1999-12-31", "50% off, $20 & more #1", "a+b=c; x/y*z", "e-mail@example.org"),
    *("▁", "▁▁", "a▁b", "▁a ▁ b▁ ", "\u00a0 \u3000 x", "\ufeff", "\ufffd", "▅", "\u2028x", "\u200b"),
    *("<s>", "</s>", "<unk>", "<0x41>", "a <s> b</s><s>", "<pad>", "<|endoftext|>", "[INST] hi [/INST]"),
    *("😀👨‍👩‍👧 ok", "🦙", "你好，世界 hello", "été 東京 🦙\n\ttab", "naïve café, Straße, señor", "e\u0301 é", "ﬁ"),
    *("Привет, мир!", "Ελλάδα", "שלום", "مرحبا", "हिन्दी", "ไทย", "한국어", "今日は良い天気です。"),
    *("-----", "aaaaaaaaaa", "hahahahaha", "=====-=-=-=", "x" * 40, "AbCdEfGh", "LOUD WORDS", "mixedCase_snake"),
    "The old clock in the hall struck nine, and nobody could say afterwards who had wound it.",
    "A dull, noisy film that never finds its feet; even the music seems embarrassed.",
    "Warm, funny and surprisingly honest -- the best thing its director has made in years.",
    "In 1876, three engineers (two of them brothers) measured the river's depth: 14.5 metres.",
    "def add(a: int, b: int) -> int:\n    return a + b\n\n\nprint(add(2, 3))",
    "Shall I, who never begged, come begging here?\nThe night is long; the candle burns but low.",
    DOCUMENT_TEXT,
    *write_stories(NUM_STORIES, seed=7),
]


def main() -> None:
    """Checks that the pieces suffice, writes the file and prints its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("name", help="what the file calls the tokenizer")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    content = arguments.tokenizer.read_bytes()
    processor, tokenizer = SentencePieceProcessor(model_proto=content), Tokenizer.from_bytes(content, arguments.name)
    used: set[int] = set()
    for text in TEXTS:
        used |= merged_pieces(tokenizer, text, processor.encode(text))
    vectors = {
        "tokenizer": arguments.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "vocab_size": tokenizer.vocab_size,
        "remove_extra_whitespaces": tokenizer.proto.remove_extra_whitespaces,
        "pieces": {id: [tokenizer.pieces[id].text, tokenizer.pieces[id].score] for id in sorted(used)},
        "texts": [
            {
                "text": text,
                "ids": processor.encode(text),
                "with_bos_and_eos": processor.encode(text, add_bos=True, add_eos=True),
            }
            for text in TEXTS
        ],
    }
    arguments.output.write_text(to_json(vectors), encoding="utf-8")
    print(f"{arguments.output}: {len(TEXTS)} texts, {len(used)} pieces, {arguments.output.stat().st_size:,} bytes")


def merged_pieces(tokenizer: Tokenizer, text: str, expected: list[int]) -> set[int]:
    """Ids of every piece that BPE produces while it encodes `text`; the last ones must be `expected`."""
    ids = {piece.text: id for id, piece in enumerate(tokenizer.pieces) if piece.type == PieceType.NORMAL}
    if tokenizer.proto.remove_extra_whitespaces:
        text = " ".join(text.split(" ")).strip(" ")
        while "  " in text:
            text = text.replace("  ", " ")
    symbols = list((SPACE + text.replace(" ", SPACE)) if text else "")
    if tokenizer.proto.remove_extra_whitespaces:
        while symbols and symbols[-1] == SPACE:
            symbols.pop()
    seen = {ids[symbol] for symbol in symbols if symbol in ids}
    while True:
        pairs = [
            (-tokenizer.pieces[ids[pair]].score, at)
            for at in range(len(symbols) - 1)
            if (pair := symbols[at] + symbols[at + 1]) in ids
        ]
        if not pairs:
            break
        at = min(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        seen.add(ids[symbols[at]])
    bytes_of = {piece.text: id for id, piece in enumerate(tokenizer.pieces) if piece.type == PieceType.BYTE}
    found: list[int] = []
    for symbol in symbols:
        found += [ids[symbol]] if symbol in ids else [bytes_of[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    assert found == expected, f"{text!r}: {found} is not SentencePiece's {expected}"
    return seen


def to_json(vectors: dict[str, object]) -> str:
    """JSON with one line for each text and one for the pieces, so that a diff shows each change."""

    def line(value: object) -> str:
        return json.dumps(value, ensure_ascii=True, separators=(",", ":"))

    texts = vectors["texts"]
    assert isinstance(texts, list)
    head = [f'"{name}":{line(value)}' for name, value in vectors.items() if name != "texts"]
    return "{\n" + ",\n".join([*head, '"texts":[\n' + ",\n".join(map(line, texts)) + "\n]"]) + "\n}\n"


if __name__ == "__main__":
    main()
