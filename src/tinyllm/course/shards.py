"""The tutorial's preprocess.py: encodes the corpus into `data/tok<size>/data00.bin ...`; the first file is for testing.

Files, printed lines and split are those of Tiny-LLM's preprocess.py. `pretokenize` also writes document ends, the
tokenizer, and a manifest with checksums, which `train.py` and `tinyllm train` check.
"""

from pathlib import Path
from typing import Any

from tinyllm import storage
from tinyllm.course.corpus import corpus_inputs, first_source, list_files, read_corpus
from tinyllm.course.layout import shard_folder, tokenizer_file
from tinyllm.course.tokenizer import TOKENIZER_MODEL
from tinyllm.errors import ArtifactError, InputError
from tinyllm.shards.format import ShardSet


def process_shard(args: tuple[int, str], vocab_size: int, tokenizer_model_path: str) -> None:
    """Encodes the stories of the file `args[1]` as a `.bin` of token ids, with BOS before each story.

    The output folder is `data/tok<vocab_size>/`, or the file's own folder for `vocab_size` 0. `args[0]`, the number of
    the file, is ignored. Raises InputError if the file or the tokenizer is missing.
    """
    import numpy as np

    from tinyllm.shards.encoding import Encoder, dtype_for
    from tinyllm.tokenizer.codec import Tokenizer

    _, file = args
    tokenizer = Tokenizer.load(tokenizer_model_path)
    encoder = Encoder(tokenizer)
    texts = [encoder.encode([document.text]) for document in read_corpus([file])]
    ids = np.concatenate([text.ids for text in texts]).astype(np.dtype(dtype_for(tokenizer.vocab_size)))
    folder = shard_folder(vocab_size) if vocab_size else Path(file).parent
    target = folder / f"{Path(file).stem}.bin"
    _write(target, ids.astype(ids.dtype.newbyteorder("<")).tobytes())
    print(f"Saved {target}, average seqlen: {len(ids) / len(texts):.2f}", flush=True)


def pretokenize(vocab_size: int) -> None:
    """Encodes the whole corpus with `data/tok<vocab_size>.model`; for `vocab_size` 0, next to the corpus files.

    Raises InputError if the corpus or the tokenizer is missing.
    """
    if vocab_size == 0:
        for numbered in enumerate(list_files()):
            process_shard(numbered, 0, TOKENIZER_MODEL)
    else:
        tokenizer = tokenizer_file(vocab_size)
        if not tokenizer.is_file():
            raise InputError(
                f"there is no tokenizer {tokenizer}; run python train_vocab.py --vocab_size {vocab_size} first"
            )
        prepare_corpus(corpus_inputs(), tokenizer, shard_folder(vocab_size))
    print("Done.")


def prepare_corpus(
    inputs: list[str],
    tokenizer: Path,
    output: Path,
    **options: Any,
) -> None:
    """Writes one shard per file of `inputs` to `output`, and prints a line about each.

    A single file is split by a hash of each document's text, because no other file is left for testing. `options` are
    further arguments of `tinyllm.shards.writer.prepare`.
    """
    from tinyllm.shards.writer import prepare
    from tinyllm.tokenizer.codec import Tokenizer

    shards: ShardSet = prepare(
        inputs,
        Tokenizer.load(tokenizer),
        output,
        validation_source=first_source(inputs),
        overwrite=True,
        **options,
    )
    for entry in shards.entries:
        mean = entry.counts.tokens / max(1, entry.counts.documents)
        print(f"Saved {output / entry.name}.bin, average seqlen: {mean:.2f}", flush=True)


def split_files(folder: Path, split: str) -> list[Path]:
    """The `.bin` files of one split, sorted by name: the first is for testing, the others for training.

    A manifest, if present, decides the split. Raises InputError if the split has no file.
    """
    files = sorted(folder.glob("*.bin"))
    if (folder / storage.MANIFEST_NAME).exists():
        entries = ShardSet.open(folder).entries
        split_name = "train" if split == "train" else "validation"
        chosen = sorted(folder / f"{entry.name}.bin" for entry in entries if entry.split == split_name)
    else:
        chosen = files[1:] if split == "train" else files[:1]
    if not chosen:
        problem = f"has only one .bin file, which is for testing, and none for {split}" if files else "has no .bin file"
        raise InputError(f"{folder} {problem}; run python preprocess.py on a corpus of two files or more")
    return chosen


def _write(target: Path, content: bytes) -> None:
    """Writes a bare `.bin` file, replacing an earlier one. A file listed in a manifest is never changed."""
    if (target.parent / storage.MANIFEST_NAME).exists():
        if target.exists() and target.read_bytes() == content:
            return
        raise ArtifactError(
            f"{target.parent} holds finished shards with checksums, so {target.name} cannot be written into it; "
            "run python preprocess.py to make all of them again"
        )
    storage.check_writable(target)
    storage.write_file(target, content)
