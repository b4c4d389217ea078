"""Exports a model in another tool's format, reads the file back, and compares it with its source before committing.

The comparison covers the logits on a fixed prompt and every token of the tokenizer. An export that differs by more than
the rounding of its format is an error and leaves no files.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tinyllm import storage
from tinyllm.errors import ArtifactError, InputError, MismatchError, TinyllmError, UsageError
from tinyllm.exchange.build import logits_of_fixed_prompt
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.gguf import export_notes, modelfile, read_gguf, write_gguf
from tinyllm.exchange.gguf_blocks import TensorType
from tinyllm.exchange.html.read import read_html
from tinyllm.exchange.html.weights import NumberKind
from tinyllm.exchange.html.write import check_html, write_html
from tinyllm.exchange.huggingface import read_hugging_face
from tinyllm.exchange.llama2c import Version, read_bin, write_bin
from tinyllm.exchange.llama2c_pt import read_pt, write_pt
from tinyllm.exchange.tokenizer_bin import tokenizer_to_bin
from tinyllm.exchange.tokenizer_source import load_tokenizer
from tinyllm.model_dir import MODEL
from tinyllm.tokenizer.codec import MODEL_NAME, Tokenizer

TOKENIZER_BIN_NAME = "tokenizer.bin"
MODELFILE_NAME = "Modelfile"
EXACT, HALF, BRAIN, EIGHT_BITS = 0.0, 2e-3, 2e-2, 5e-2
"""Largest difference of a logit, relative to the source's range of logits: none, float16, bfloat16, int8 groups."""
SPACES = "a  b   c"
LEADING_SPACE = " a"


@dataclass(frozen=True)
class FileTarget:
    """A format of one file, with a tokenizer next to it if the file includes none."""

    summary: str
    tolerance: float
    write: Callable[[IO[bytes], ForeignModel], None]
    read: Callable[[Path], ForeignModel]
    tokenizer_name: str | None = None
    """The file name that the format's programs expect; None if the tokenizer is inside."""
    tensor_type: TensorType | None = None
    """Type of the matrices in a GGUF file."""
    page_numbers: NumberKind | None = None
    """Type of the matrices in an HTML page."""

    @property
    def format_name(self) -> str:
        """The summary without the number type."""
        return self.summary.partition(",")[0]


@dataclass(frozen=True)
class DirectoryTarget:
    """A Hugging Face directory with weights of one dtype."""

    summary: str
    tolerance: float
    dtype: str


@dataclass(frozen=True)
class Export:
    """The result of a finished export."""

    path: Path
    num_bytes: int
    """Size of the file, or of all files in the directory."""
    beside: list[Path]
    """Files that were written with it: a tokenizer, a Modelfile."""
    largest_difference: float
    """Largest difference of a logit on the fixed prompt."""
    logit_range: float
    """Largest minus smallest logit of the source on the fixed prompt."""
    notes: list[str]
    """One line per property that the format cannot store."""


def _gguf(tensor_type: TensorType, name: str, tolerance: float) -> FileTarget:
    def write(file: IO[bytes], model: ForeignModel) -> None:
        write_gguf(file, model, tensor_type, "tinyllm")

    return FileTarget(f"GGUF, {name}", tolerance, write, read_gguf, tensor_type=tensor_type)


def _llama2c(version: Version, name: str, tolerance: float) -> FileTarget:
    summary = f"llama2.c .bin version {version}, {name}"
    return FileTarget(summary, tolerance, partial(write_bin, version=version), read_bin, TOKENIZER_BIN_NAME)


def _html(kind: NumberKind, tolerance: float) -> FileTarget:
    name = {"int8": "int8 rows", "bf16": "bfloat16"}[kind]
    return FileTarget(f"HTML page, {name}", tolerance, partial(write_html, kind=kind), read_html, page_numbers=kind)


MORE_BITS = "this model needs more bits: choose html-bf16, gguf-bf16, llama2c or safetensors"
"""Advice for a model whose logits 8 bits change too much."""
TARGETS: dict[str, FileTarget | DirectoryTarget] = {
    "llama2c": _llama2c(0, "float32", EXACT),
    "llama2c-v1": _llama2c(1, "float32", EXACT),
    "llama2c-q8": _llama2c(2, "int8 groups", EIGHT_BITS),
    "pt": FileTarget("llama2.c .pt", EXACT, write_pt, read_pt, MODEL_NAME),
    "gguf": _gguf(TensorType.F32, "float32", EXACT),
    "gguf-f16": _gguf(TensorType.F16, "float16", HALF),
    "gguf-bf16": _gguf(TensorType.BF16, "bfloat16", BRAIN),
    "gguf-q8": _gguf(TensorType.Q8_0, "Q8_0", EIGHT_BITS),
    "html": _html("int8", EIGHT_BITS),
    "html-bf16": _html("bf16", BRAIN),
    "safetensors": DirectoryTarget("Hugging Face directory, float32", EXACT, "float32"),
    "safetensors-fp16": DirectoryTarget("Hugging Face directory, float16", HALF, "float16"),
    "safetensors-bf16": DirectoryTarget("Hugging Face directory, bfloat16", BRAIN, "bfloat16"),
}


def export_model(
    model: ForeignModel,
    target: str,
    output: Path,
    *,
    with_modelfile: bool = False,
    title: str | None = None,
    prompt: str | None = None,
    overwrite: bool = False,
) -> Export:
    """Writes `model`, which needs a tokenizer, as `output`; `target` is a key of `TARGETS`.

    `title` and `prompt` are the heading of an HTML page and the text in its prompt; the heading is `output`'s stem
    unless given.
    With `overwrite` it replaces an earlier export of the same kind, and nothing else. Raises UsageError for an unknown
    target, InputError for a model that the format cannot store. Raises ArtifactError if `output` cannot be replaced,
    MismatchError if the copy differs from the model. No file is left after an error.
    """
    found = TARGETS.get(target)
    if found is None:
        raise UsageError(f"target {target} is not a format; choose {', '.join(TARGETS)}", parameter="target")
    if with_modelfile and (isinstance(found, DirectoryTarget) or found.tensor_type is None):
        raise UsageError(
            f"with_modelfile does not fit {target}",
            parameter="with_modelfile",
            hint="it requires `target=gguf`, gguf-f16, gguf-bf16 or gguf-q8",
        )
    found = _with_page_texts(found, target, {"title": title, "prompt": prompt}, output)
    if isinstance(found, DirectoryTarget):
        storage.check_replaceable(output, MODEL, overwrite=overwrite)
        storage.check_writable(output)
        return _export_directory(model, found, output)
    storage.check_new_file(
        output, f"a {found.summary.partition(',')[0]} file", partial(_can_be_read, found.read), overwrite=overwrite
    )
    if found.page_numbers is not None:
        check_html(model, found.page_numbers)
    beside = _files_beside(model, found, output, with_modelfile)
    for path, content in beside.items():
        _check_companion(path, content, output)
    return _export_file(model, found, output, beside)


def _with_page_texts(
    target: FileTarget | DirectoryTarget, name: str, texts: dict[str, str | None], output: Path
) -> FileTarget | DirectoryTarget:
    """`target` with a writer of pages with these texts. Raises UsageError for texts of another format."""
    given = {parameter: text for parameter, text in texts.items() if text is not None}
    if isinstance(target, FileTarget) and target.page_numbers is not None:
        return replace(target, write=partial(target.write, **({"title": output.stem} | given)))
    for parameter in given:
        hint = "it requires `target=html` or html-bf16"
        raise UsageError(f"{parameter} does not fit {name}", parameter=parameter, hint=hint)
    return target


def tokenizer_of(model: ForeignModel) -> Tokenizer:
    """The tokenizer of a model that was read with one."""
    assert model.tokenizer is not None, "read_model gives every model its tokenizer"
    return model.tokenizer


def _export_file(model: ForeignModel, target: FileTarget, output: Path, beside: dict[Path, bytes]) -> Export:
    expected = logits_of_fixed_prompt(model)
    with ExitStack() as drafts:
        file = drafts.enter_context(storage.commit_file(output))
        target.write(file, model)
        file.flush()
        copy = target.read(Path(file.name))
        difference = _compare(expected, copy, target.tolerance, output)
        tokenizer = copy.tokenizer
        for path, content in beside.items():
            companion = drafts.enter_context(storage.commit_file(path))
            companion.write(content)
            companion.flush()
            if path.name == target.tokenizer_name:
                tokenizer = load_tokenizer(Path(companion.name))
        notes = _compare_tokenizers(tokenizer_of(model), tokenizer, output)
    if target.tensor_type is not None:
        notes += export_notes(model, target.tensor_type)
    return Export(output, output.stat().st_size, list(beside), difference, float(np.ptp(expected)), notes)


def _export_directory(model: ForeignModel, target: DirectoryTarget, output: Path) -> Export:
    import torch

    from tinyllm.model_dir import save_model

    expected = logits_of_fixed_prompt(model)
    weights = {name: torch.from_numpy(tensor) for name, tensor in model.tensors.items()}
    difference, notes = 0.0, []

    def read_back(draft: Path) -> None:
        nonlocal difference, notes
        copy = read_hugging_face(draft)
        difference = _compare(expected, copy, target.tolerance, output)
        notes = _compare_tokenizers(tokenizer_of(model), copy.tokenizer, output)

    save_model(
        output,
        weights,
        model.config,
        tokenizer_of(model),
        details={"source": model.source},
        dtype=getattr(torch, target.dtype),
        check=read_back,
    )
    num_bytes = sum(entry.bytes for entry in storage.read_manifest(output).files.values())
    return Export(output, num_bytes, [], difference, float(np.ptp(expected)), notes)


def _files_beside(model: ForeignModel, target: FileTarget, output: Path, with_modelfile: bool) -> dict[Path, bytes]:
    """Path -> content of the files written with `output`. Raises InputError if `output` has the name of one."""
    contents: dict[str, bytes] = {}
    if target.tokenizer_name == TOKENIZER_BIN_NAME:
        contents[TOKENIZER_BIN_NAME] = tokenizer_to_bin(tokenizer_of(model))
    elif target.tokenizer_name == MODEL_NAME:
        contents[MODEL_NAME] = tokenizer_of(model).model_proto
    if with_modelfile:
        contents[MODELFILE_NAME] = modelfile(output.name, model.config).encode()
    beside = {output.with_name(name): content for name, content in contents.items()}
    for path in beside:
        if path == output:
            raise InputError(f"{output} is the name of the {path.name} that is written with the model; choose another")
    return beside


def _check_companion(path: Path, content: bytes, output: Path) -> None:
    """Raises ArtifactError if the file `path` exists with another content.

    It is replaced only if `output` replaces an earlier export, whose companion it is.
    """
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return
    if os.path.lexists(path) and not output.exists():
        raise ArtifactError(f"{path} exists already, with another content; choose another folder, or move it")
    is_own = _is_modelfile if path.name == MODELFILE_NAME else partial(_can_be_read, load_tokenizer)
    storage.check_new_file(path, f"a {path.name}", is_own, overwrite=True)


def _is_modelfile(path: Path) -> bool:
    return any(line.startswith(b"FROM ") for line in path.read_bytes()[: 2**16].splitlines())


def _can_be_read(read: Callable[[Path], object], path: Path) -> bool:
    """Whether `read` accepts the file."""
    try:
        read(path)
    except TinyllmError:
        return False
    return True


def _compare(expected: NDArray[np.float32], copy: ForeignModel, tolerance: float, output: Path) -> float:
    """The largest difference of a logit. Raises MismatchError if it exceeds the tolerance."""
    difference = float(np.abs(expected - logits_of_fixed_prompt(copy)).max())
    limit = tolerance * float(np.ptp(expected))
    if not difference <= limit:
        raise MismatchError(
            f"{output} was not written: read back, its logits differ from the model's by up to {difference:.3g}, "
            f"and {copy.source} may differ by {limit:.3g}",
            hint=MORE_BITS if tolerance >= EIGHT_BITS else "",
        )
    return difference


def _compare_tokenizers(expected: Tokenizer, copy: Tokenizer | None, output: Path) -> list[str]:
    """One line per property that the copy lost. Raises MismatchError if a token differs."""
    assert copy is not None, "a target has its tokenizer inside or next to it"
    for id, (ours, theirs) in enumerate(zip(expected.pieces, copy.pieces, strict=True)):
        if (ours.text, ours.score) != (theirs.text, theirs.score):
            raise MismatchError(
                f"{output} was not written: read back, token {id} is {theirs.text!r}, not {ours.text!r}"
            )
    notes = []
    if copy.encode(SPACES) != expected.encode(SPACES):
        kept = "kept" if len(expected.encode(SPACES)) > len(copy.encode(SPACES)) else "removed"
        notes.append(f"the tokenizer's file cannot store that runs of spaces are {kept}; keep {MODEL_NAME} for tinyllm")
    return notes + _lost_rules(expected, copy)


def _lost_rules(expected: Tokenizer, copy: Tokenizer) -> list[str]:
    """One line per lost rule about the start and end of a text, or about pieces found in every text."""
    notes = []
    if copy.end_ids != expected.end_ids:
        named, ends = (", ".join(map(str, sorted(each.end_ids))) or "none" for each in (expected, copy))
        notes.append(
            f"the format cannot store which tokens end a text: the model's are {named}, read back they are {ends}"
        )
    if copy.begins_with_bos != expected.begins_with_bos:
        notes.append("the format cannot store that a prompt begins without BOS")
    lost = [ours.text for ours, theirs in zip(expected.pieces, copy.pieces, strict=True) if ours.type != theirs.type]
    if lost:
        notes.append(
            f"the tokenizer's file does not mark {len(lost)} pieces as reserved or user-defined: {lost[0]!r:.60}, …"
        )
    return notes
