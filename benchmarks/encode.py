"""Encoding: our encoder, which caches words, against SentencePiece; and shards by one process and by two.

    python benchmarks/encode.py [--text FILE --tokenizer FILE] [--repeat 10] [--rounds 5] [--json FILE]

Every round begins with an empty cache of words. The default text is 20,000 stories of the storybook, the default
tokenizer that of the bundled model. Ids are compared before the first measurement. The sides alternate; medians count.
Shards are made of several copies of the text, because starting a process takes as long as encoding some megabytes.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import make_parser, write_result
from sentencepiece import SentencePieceProcessor

from tinyllm.corpus.storybook import write_stories
from tinyllm.model_dir import bundled_model, read_tokenizer
from tinyllm.shards.encoding import Encoder
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer


def main() -> None:
    arguments = parse_arguments()
    tokenizer = Tokenizer.load(arguments.tokenizer) if arguments.tokenizer else read_tokenizer(bundled_model())
    stories = read_stories(arguments.text) * arguments.repeat
    processor = SentencePieceProcessor(model_proto=tokenizer.model_proto)
    check_ids(tokenizer, processor, stories)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "stories.txt"
        text.write_text("<|endoftext|>".join(stories * arguments.copies), encoding="utf-8")
        sides: dict[str, Callable[[], object]] = {
            "SentencePiece, a story at a time": lambda: [processor.encode(story) for story in stories],
            "our encoder": lambda: Encoder(tokenizer).encode(stories),
            "prepare, 1 process": lambda: prepare_anew(text, tokenizer, Path(folder) / "shards", 1),
            "prepare, 2 processes": lambda: prepare_anew(text, tokenizer, Path(folder) / "shards", 2),
        }
        seconds = take_turns(sides, arguments.rounds)
        megabytes = text.stat().st_size / 1e6
        sizes = {name: megabytes if "prepare" in name else megabytes / arguments.copies for name in sides}
        rates = {name: sizes[name] / statistics.median(values) for name, values in seconds.items()}
    encoder, peer, one, two = (rates[name] for name in ("our encoder", *(n for n in sides if n != "our encoder")))
    rows: list[dict[str, Any]] = [
        {"what": "text to ids, MB/s, against SentencePiece", "ours": encoder, "peer": peer},
        {"what": f"text to shards, {megabytes:.0f} MB, MB/s, two processes against one", "ours": two, "peer": one},
    ]
    for row in rows:
        print(f"{row['what']:64} {row['ours']:9.1f} {row['peer']:9.1f}   {row['ours'] / row['peer']:.2f} x", flush=True)
    write_result(arguments.json, rows)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--text", type=Path, help="Stories between <|endoftext|>.")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--repeat", type=int, default=1, help="How often the text is taken.")
    parser.add_argument("--copies", type=int, default=16, help="Of the text, in shards.")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def read_stories(text: Path | None) -> list[str]:
    if text is None:
        return list(write_stories(20_000, seed=7))
    return [story.strip() for story in text.read_text(encoding="utf-8").split("<|endoftext|>") if story.strip()]


def check_ids(tokenizer: Tokenizer, processor: SentencePieceProcessor, stories: list[str]) -> None:
    """Asserts that both sides give the same ids, BOS apart."""
    sample = stories[:2000]
    for ids, story in zip(Encoder(tokenizer).encode(sample).split(), sample, strict=True):
        assert ids[1:].tolist() == processor.encode(story), f"other ids for {story[:60]!r}"


def prepare_anew(text: Path, tokenizer: Tokenizer, output: Path, num_workers: int) -> None:
    """`prepare` leaves existing shards of the same text unchanged."""
    shutil.rmtree(output, ignore_errors=True)
    prepare([text], tokenizer, output, num_workers=num_workers)


def take_turns(sides: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; the sides alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(num_rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
