"""The tutorial's preprocess.py: from the corpus to `data/tok<size>/data00.bin ...`, of which the first is for testing.

Files, lines and split are those of Tiny-LLM's preprocess.py. `pretokenize` also writes what `train.py` and
`tinyllm train` check: document ends, the tokenizer, and a manifest with checksums.
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
    """Encodes the stories of one file, `args[1]`, into a `.bin` of token ids; BOS begins each story.

    It goes into `data/tok<vocab_size>/`, or beside the file where `vocab_size` is 0. `args[0]` is the file's number.
    Raises InputError for a file or a tokenizer that is missing.
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
    """Encodes the whole corpus with `data/tok<vocab_size>.model`; where `vocab_size` is 0, beside its files.

    Raises InputError where the corpus or the tokenizer is missing.
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
    """Writes the shards of `inputs` to `output`, one for each file, and prints a line about each.

    Of a single file documents are held back by a hash of their text, since there is no other file to test on.
    `options` are further arguments of `tinyllm.shards.writer.prepare`.
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
    assert shards.details is not None
    for entry in shards.details.shards:
        mean = entry.counts.tokens / max(1, entry.counts.documents)
        print(f"Saved {output / entry.name}.bin, average seqlen: {mean:.2f}", flush=True)


def split_files(folder: Path, split: str) -> list[Path]:
    """The `.bin` files of one split, by name: the first is for testing, the others for training.

    Shards with a manifest say themselves which is which. Raises InputError where there is none for this split.
    """
    files = sorted(folder.glob("*.bin"))
    if (folder / storage.MANIFEST_NAME).exists():
        details = ShardSet.open(folder).details
        assert details is not None
        wanted = "train" if split == "train" else "validation"
        chosen = sorted(folder / f"{entry.name}.bin" for entry in details.shards if entry.split == wanted)
    else:
        chosen = files[1:] if split == "train" else files[:1]
    if not chosen:
        problem = f"has one .bin file alone, which is for testing, so none for {split}" if files else "has no .bin file"
        raise InputError(f"{folder} {problem}; run python preprocess.py on a corpus of two files or more")
    return chosen


def _write(target: Path, content: bytes) -> None:
    """Writes a bare `.bin` file anew. A file with a checksum in a manifest is never changed."""
    if (target.parent / storage.MANIFEST_NAME).exists():
        if target.exists() and target.read_bytes() == content:
            return
        raise ArtifactError(
            f"{target.parent} holds finished shards with checksums, so {target.name} cannot be written into it; "
            "run python preprocess.py to make all of them anew"
        )
    storage.check_writable(target)
    storage.write_file(target, content)
