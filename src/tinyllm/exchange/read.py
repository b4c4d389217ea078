"""Reads a model of any other tool by its content, not by its name, together with its tokenizer.

A file without a tokenizer uses the named one or one in the same folder. The number of tokens must agree, and a model
without a tokenizer is refused.
"""

from dataclasses import replace
from pathlib import Path

from tinyllm.errors import FormatError, InputError, MismatchError
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.gguf import read_gguf
from tinyllm.exchange.html.read import read_html
from tinyllm.exchange.huggingface import read_hugging_face
from tinyllm.exchange.llama2c import MAGIC, read_bin
from tinyllm.exchange.llama2c_pt import read_pt
from tinyllm.exchange.tokenizer_source import load_tokenizer
from tinyllm.tokenizer.resizing import fit_to

ZIP_MAGIC = b"PK\x03\x04"
GGUF_MAGIC = b"GGUF"
BIN_MAGIC = MAGIC.to_bytes(4, "little")
PAGE_START = b"<!doctype"
PICKLE_START = b"\x80"
PICKLE_PROTOCOLS = range(2, 6)


def read_model(path: Path, tokenizer: Path | None = None) -> ForeignModel:
    """The model in a file or Hugging Face directory, with a tokenizer: the named one, its own, or one next to it.

    Raises InputError if something is missing, FormatError if a file is damaged or of another kind. Raises
    MismatchError if model and tokenizer have different numbers of tokens.
    """
    model = read_weights(path)
    found = model.tokenizer
    if tokenizer is not None or found is None:
        found = load_tokenizer(tokenizer or find_tokenizer(path, model.config.vocab_size))
        if path.is_dir():
            found = fit_to(found, model.config.vocab_size) or found
    if found.vocab_size != model.config.vocab_size:
        raise MismatchError(
            f"{path} has {model.config.vocab_size} tokens, but {found.name} has {found.vocab_size}",
            hint="name the tokenizer that the model was trained with: `tokenizer=FILE`",
        )
    return replace(model, tokenizer=found.with_rules(end_ids=model.end_ids))


def read_weights(path: Path) -> ForeignModel:
    """The model at `path`, with a tokenizer only if the format includes one. Raises as `read_model` does."""
    if path.is_dir():
        return read_hugging_face(path)
    if not path.is_file():
        raise InputError(f"model {path} does not exist")
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(ZIP_MAGIC):
        return read_pt(path)
    if start.startswith(GGUF_MAGIC):
        return read_gguf(path)
    if start.lower() == PAGE_START:
        return read_html(path)
    if _is_pickle(start):
        raise FormatError(
            f"{path} is a bare pickle, which could run anything; it is not read. "
            "Save it again with torch.save of PyTorch 1.6 or later"
        )
    if start[4:] == b"\0\0\0\0{":
        # A llama2.c model of 123 layers also has "{" here, but after a feed-forward width above 0 and not after zeros.
        raise FormatError(f"{path} is a safetensors file; give its directory with config.json")
    try:
        return read_bin(path)
    except FormatError as error:
        if start.startswith(BIN_MAGIC):
            raise
        # Version 0 of .bin has no magic number, so any file may be one.
        raise FormatError(
            f"{path} is not GGUF, .pt, a Hugging Face directory or llama2.c .bin; read as a .bin of version 0: {error}"
        ) from None


def _is_pickle(start: bytes) -> bool:
    """Whether a file's first bytes are a pickle's: byte 0x80, a protocol, an opcode.

    A llama2.c header of version 0 may also begin with 0x80, because it starts with the width in four bytes, such as
    128 or 384. The upper two bytes of a width below 65,536 are 0, but a pickle's third byte is an opcode and never 0.
    """
    return start[:1] == PICKLE_START and start[1:2] != b"" and start[1] in PICKLE_PROTOCOLS and start[2:4] != b"\0\0"


def find_tokenizer(model: Path, vocab_size: int) -> Path:
    """The tokenizer of `model`: next to it, in the run around it, or `tokenizer.model` in the working folder.

    A run is a folder with a directory `model`, such as `output/` with `output/ckpt.pt`. The tutorial keeps tokenizers
    in `data/` next to `output/`. Raises InputError if there is none.
    """
    folder = model if model.is_dir() else model.parent
    names = [f"tok{vocab_size}.model", f"tok{vocab_size}.bin", "tokenizer.model", "tokenizer.bin", "tokenizer.json"]
    beside = [folder / name for name in names]
    in_run = [folder / "model" / "tokenizer.model", folder.absolute().parent / "data" / f"tok{vocab_size}.model"]
    for candidate in [*beside, *in_run, Path("tokenizer.model")]:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"{model} has no tokenizer inside, and there is no {', '.join(names[:-1])} or {names[-1]} in {folder}",
        hint="name it: `tokenizer=FILE`",
    )
