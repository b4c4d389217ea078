"""The paths of the tutorial's files, and the choice among several sizes of vocabulary.

data/TinyStories_all_data/data00.json ...    the corpus, or data/TinyStories_all_data.tar.gz, read without unpacking
data/tok4096.model                           the tokenizer
data/tok4096/data00.bin ...                  token ids, one file per file of the corpus
output/ckpt.pt                               the model
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tinyllm.errors import InputError, UsageError

DATA = Path("data")
CORPUS_FOLDER, CORPUS_ARCHIVE = DATA / "TinyStories_all_data", DATA / "TinyStories_all_data.tar.gz"
OUTPUT = Path("output")
CHECKPOINT = OUTPUT / "ckpt.pt"
DEFAULT_VOCAB_SIZE = 4096


def tokenizer_file(vocab_size: int) -> Path:
    """The path of the tokenizer with `vocab_size` tokens."""
    return DATA / f"tok{vocab_size}.model"


def shard_folder(vocab_size: int) -> Path:
    """The folder of the shards made with the tokenizer of `vocab_size` tokens."""
    return DATA / f"tok{vocab_size}"


def choose_tokenizer(vocab_size: int | None) -> int:
    """The vocabulary size of the tokenizer to use: `vocab_size`, else the tutorial's 4096, else the only one.

    Raises InputError if there is none, UsageError if there are several.
    """
    return _choose(vocab_size, _sizes(DATA.glob("tok*.model")), "tokenizer", "train_vocab.py", "preprocess.py")


def choose_shards(vocab_size: int | None) -> int:
    """The vocabulary size of the shards to use, by the rule of `choose_tokenizer`, with the same errors."""
    folders = (path for path in DATA.glob("tok*") if path.is_dir())
    return _choose(vocab_size, _sizes(folders), "encoded corpus", "preprocess.py", "train.py")


def _choose(asked: int | None, found: Sequence[int], what: str, maker: str, user: str) -> int:
    size = asked
    if size is None and DEFAULT_VOCAB_SIZE in found:
        size = DEFAULT_VOCAB_SIZE
    if size is None and len(found) == 1:
        (size,) = found
    if size is not None and size in found:
        return size
    if size is None and found:
        sizes = ", ".join(map(str, found))
        raise UsageError(f"{DATA} has a {what} of several sizes ({sizes}); choose one by --vocab_size")
    if size is None:
        raise InputError(f"there is no {what} in {DATA}; run python {maker} first")
    other = f", or use the one of {found[0]}: python {user} --vocab_size {found[0]}" if found else ""
    raise InputError(
        f"there is no {what} of {size} tokens in {DATA}; run python {maker} --vocab_size {size} first{other}"
    )


def _sizes(paths: Iterable[Path]) -> list[int]:
    names = [path.name.removesuffix(".model").removeprefix("tok") for path in paths]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())
