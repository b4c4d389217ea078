"""The tutorial's train_vocab.py: downloads the corpus, and trains the tokenizer `data/tok<size>.model`.

Printed lines and files are those of Tiny-LLM's train_vocab.py. There is no temporary text file, so no question about
deleting one, and the archive is not unpacked.
"""

from collections.abc import Iterable, Iterator

from tinyllm import storage
from tinyllm.cli.console import show
from tinyllm.course.corpus import corpus_inputs, first_record, list_files, read_corpus
from tinyllm.course.layout import CORPUS_ARCHIVE, CORPUS_FOLDER, tokenizer_file
from tinyllm.errors import UsageError

MAX_INPUT_BYTES = 100_000_000
"""Limit of text to train on; from more text, lines are sampled with a fixed seed."""
NUM_SHARDS = 20


def download() -> None:
    """Downloads TinyStories into `data/` unless it exists, and prints one story.

    Raises DownloadError if the download fails.
    """
    from tinyllm.cli.data import fetch_corpus
    from tinyllm.corpus.catalogue import TINYSTORIES

    if any(CORPUS_FOLDER.glob("*.json")):
        print(f"{CORPUS_FOLDER} already exists, skipping download...")
    elif CORPUS_ARCHIVE.exists():
        print(f"{CORPUS_ARCHIVE} already exists, skipping download...")
    else:
        url = TINYSTORIES.urls["modelscope"]
        print(f"Downloading {url} to {CORPUS_ARCHIVE}...", flush=True)
        fetch_corpus(url, CORPUS_ARCHIVE, TINYSTORIES.sha256, TINYSTORIES.num_bytes)
    files = list_files()
    print("Download done.")
    print(f"Number of shards: {len(files)}")
    show(f"Example story:\n{first_record(files[0])}", flush=True)


def train_vocab(vocab_size: int = 32000, num_shards: int = NUM_SHARDS) -> None:
    """Trains the tokenizer `data/tok<vocab_size>.model` on the first `num_shards` files of the corpus.

    Raises InputError if the corpus is missing or too small, UsageError for impossible sizes.
    """
    if num_shards < 1:
        raise UsageError(f"num_shards is {num_shards}; at least 1 file is needed")
    corpus_inputs()
    files = list_files()[:num_shards]
    train_tokenizer((document.text for document in read_corpus(files)), vocab_size)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> None:
    """Trains `data/tok<vocab_size>.model` and its `.vocab` on `texts`, replacing earlier files."""
    from tinyllm.tokenizer.codec import Tokenizer
    from tinyllm.tokenizer.files import vocab_text
    from tinyllm.tokenizer.training import sample_lines, train_model

    check_vocab_size(vocab_size)
    target = tokenizer_file(vocab_size)
    storage.check_writable(target)
    lines = sample_lines(_print_size(texts), MAX_INPUT_BYTES, seed=0).lines
    print("Will now train the vocab...", flush=True)
    model_proto = train_model(lines, vocab_size)
    storage.write_file(target, model_proto)
    storage.write_file(target.with_suffix(".vocab"), vocab_text(Tokenizer.from_bytes(model_proto, str(target))))
    print(f"Trained tokenizer is in {target}")
    print("Done.")


def check_vocab_size(vocab_size: int) -> None:
    """Raises UsageError if the size leaves no piece for words."""
    from tinyllm.tokenizer.training import NUM_META_PIECES

    if vocab_size <= NUM_META_PIECES:
        raise UsageError(
            f"vocab_size is {vocab_size}; at least {NUM_META_PIECES + 1} is needed, "
            f"because {NUM_META_PIECES} ids are bytes and control tokens"
        )


def _print_size(texts: Iterable[str]) -> Iterator[str]:
    """Passes texts on; after the last one, prints the size of a file with one text a line."""
    num_bytes = 0
    for text in texts:
        num_bytes += len(text.encode(errors="replace")) + 1
        yield text
    print(f"Size is: {num_bytes / 1024 / 1024:.2f} MB", flush=True)
