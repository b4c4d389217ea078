"""`tinyllm import` and `tinyllm export`: convert models from and to other tools' formats, and compare the logits."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tinyllm import loading
from tinyllm.addresses import shown, with_addresses
from tinyllm.cli.console import note
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.write import TARGETS, Export, export_model, tokenizer_of
from tinyllm.model.size import num_parameters
from tinyllm.model_dir import MODEL
from tinyllm.storage.remote.outputs import directory_output, file_output

TokenizerFile = Annotated[
    Path | None,
    Parameter(help="For a model with no tokenizer inside or beside it: a .model file or a llama2.c tokenizer.bin."),
]


def import_model(
    model: Annotated[Path, Parameter(help="A llama2.c .bin or .pt, a GGUF file, or a Hugging Face directory.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Model directory to write.")],
    tokenizer: TokenizerFile = None,
    overwrite: Annotated[
        bool, Parameter(negative="", show_default=False, help="Replace an existing model directory.")
    ] = False,
) -> None:
    """Convert another tool's model to a model directory.

    The file's content determines the format. Weights become float32; quantized ones are decoded. Before the directory
    is committed, it is read back and its logits are compared with the file's.

    For example:

      tinyllm import stories260K.bin -o stories260K
      tinyllm import stories42M.pt --tokenizer tokenizer.model -o stories42M
      tinyllm import model.gguf -o from-gguf
    """
    found = loading.read_model(model, tokenizer)
    _say_what_it_is(model, found)
    with directory_output(output, MODEL, overwrite=overwrite, note=note) as (place, replaces):
        _say_what_was_written(export_model(found, "safetensors", place, overwrite=replaces))


def export(
    model: Annotated[Path, Parameter(help="Model directory, run directory, or another tool's model.")],
    /,
    *,
    to: Annotated[str, Parameter(help=f"Format: {', '.join(TARGETS)}.")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="File to write; for safetensors a directory.")],
    tokenizer: TokenizerFile = None,
    modelfile: Annotated[
        bool, Parameter(negative="", show_default=False, help="Write an Ollama Modelfile beside a GGUF.")
    ] = False,
    title: Annotated[str | None, Parameter(help="Heading of an HTML page; default: the name of its file.")] = None,
    prompt: Annotated[str | None, Parameter(help="Text that an HTML page offers to continue.")] = None,
    overwrite: Annotated[
        bool, Parameter(negative="", show_default=False, help="Replace an earlier export of the same format.")
    ] = False,
) -> None:
    """Write a model in another tool's format, and compare the logits.

    The file is read back, its logits on a fixed prompt are compared with the model's, and the largest difference is
    printed. A difference beyond the format's rounding is an error, and no file is left. The tokenizer is stored inside,
    or as tokenizer.bin (llama2c) or tokenizer.model (pt) in the same folder.

    An HTML page holds model, tokenizer and engine in one file that opens from disk, offline, also on a phone.

    For example:

      tinyllm export runs/storybook --to llama2c -o model.bin
      tinyllm export runs/storybook --to gguf-q8 -o model.gguf --modelfile
      tinyllm export runs/storybook --to html -o story.html --title "Our class"
      tinyllm export stories260K.bin --to safetensors-fp16 -o stories260K-fp16
    """
    found = loading.read_model(model, tokenizer)
    _say_what_it_is(model, found)
    with ExitStack() as stack:
        if to.startswith("safetensors"):
            place, overwrite = stack.enter_context(directory_output(output, MODEL, overwrite=overwrite, note=note))
        else:
            place = stack.enter_context(file_output(output, overwrite=overwrite, note=note))
        _say_what_was_written(
            export_model(found, to, place, with_modelfile=modelfile, title=title, prompt=prompt, overwrite=overwrite)
        )


def _say_what_it_is(path: Path, model: ForeignModel) -> None:
    tokenizer = tokenizer_of(model)
    note(f"{shown(path)}: {model.source}, {num_parameters(model.config):,} parameters")
    note(f"tokenizer: {tokenizer.name}, {tokenizer.vocab_size:,} tokens")
    for line in model.notes:
        note(line)


def _say_what_was_written(export: Export) -> None:
    for line in export.notes:
        note(f"note: {line}")
    beside = "".join(f", with {path.name}" for path in export.beside)
    difference = f"{export.largest_difference:.3g} of a range of {export.logit_range:.3g}"
    wrote = f"wrote {export.path}"
    print(f"{with_addresses(wrote)} ({export.num_bytes:,} bytes{beside}); largest logit difference {difference}")
