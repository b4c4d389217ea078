"""Tiny byte-level BPE tokenizers, trained by `tokenizers` and saved by transformers, and odd texts to encode."""

import random
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

END, START, TURN = "<|endoftext|>", "<|begin_of_text|>", "<|im_start|>"
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
TEXTS = [f"Once upon a time the {animal} saw 123 red balls. It's fun!" for animal in ("fox", "bear", "owl", "cat")]


def _splitter(kind: str) -> Any:
    """The pre-tokenizer of GPT-2, of SmolLM (digits apart), or of Llama 3."""
    if kind == "llama3":
        words = pre_tokenizers.Split(Regex(LLAMA3_WORDS), behavior="isolated")
        return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return (
        bytes_ if kind == "gpt2" else pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_])
    )


def save_byte_level(kind: str, directory: Path, vocab_size: int = 400) -> Path:
    """Saves a tokenizer of `kind` (gpt2, smollm, llama3) with three special tokens; returns `directory`."""
    built = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    built.pre_tokenizer, built.decoder = _splitter(kind), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, START, TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator(TEXTS * 5, trainer)
    if kind == "llama3":
        built.post_processor = processors.TemplateProcessing(
            single=f"{START} $A", pair=f"{START} $A {START} $B", special_tokens=[(START, built.token_to_id(START))]
        )
    make: Any = transformers.PreTrainedTokenizerFast
    wrapped = make(tokenizer_object=built, bos_token=START if kind == "llama3" else END, eos_token=END)
    wrapped.save_pretrained(directory)
    return directory


PARTS = (
    *(
        "the",
        "Fox",
        "balls",
        "It's",
        "123",
        "4567890",
        "é",
        "e\u0301",
        "ñ",
        "ß",
        "İ",
        "日本語",
        "中文",
        "한국어",
        "العربية",
    ),
    *(
        "👩‍👩‍👧‍👦",
        "🇩🇪",
        "🙂",
        "\u200d",
        "\ufe0f",
        "\u0301\u0301\u0301",
        "\ufffd",
        "\x00",
        "\x07",
        "\x1b[0m",
        "\x7f",
        "\u0085",
    ),
    *(" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\ufeff", "▁", "Ġ", "Ċ"),
    *(
        END,
        START,
        TURN,
        "<|",
        "|>",
        "<s>",
        "[PAD7]",
        "!!!",
        "...",
        "\\",
        '"',
        "'ll",
        "—",
        "𝔘𝔫𝔦",
        "\U0010ffff",
        "\ue000",
    ),
)


def odd_texts(count: int) -> list[str]:
    """`count` texts of one to twelve random parts, and of random characters; the empty text is the first."""
    number = random.Random(20)
    texts = [""]
    while len(texts) < count:
        if number.random() < 0.7:
            texts.append("".join(number.choices(PARTS, k=number.randint(1, 12))))
        else:
            points = [number.choice((number.randrange(0x500), number.randrange(0xD7FF))) for _ in range(20)]
            texts.append("".join(map(chr, points)))
    return texts
