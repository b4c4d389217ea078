"""`tinyllm classify train` and `tinyllm classify predict`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from tinyllm import loading, storage
from tinyllm.classification.examples import format_predictions, parse_sentences, read_bytes
from tinyllm.classification.scores import score
from tinyllm.classification.task import check_limit, finetune_config
from tinyllm.cli.classification import (
    check_output_directory,
    check_prediction_files,
    show_scores,
    show_task_scores,
    train_with_display,
)
from tinyllm.cli.console import TEXT_OR_DASH, note, show
from tinyllm.cli.paths import quoted
from tinyllm.cli.progress import Display, stderr
from tinyllm.errors import InputError, UsageError
from tinyllm.machine.device import pick_device
from tinyllm.text_input import read_argument, standard_input

STANDARD_INPUT = Path("-")
TokenizerFile = Annotated[
    Path | None, Parameter(help="For a model with no tokenizer inside or beside it: .model or tokenizer.bin.")
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N or mps.")]
MaxTokens = Annotated[
    int | None, Parameter(help="Cut sentences to this many tokens, BOS included; default: the model's context.")
]


def train(
    model: Annotated[Path, Parameter(help="Language model of any format, or a classifier to train further.")],
    /,
    *,
    train: Annotated[Path, Parameter(help="Training sentences, a line each: label ||| text.")],
    dev: Annotated[Path, Parameter(help="Sentences that choose the best epoch.")],
    test: Annotated[Path | None, Parameter(help="Sentences that score the best epoch at the end.")] = None,
    label_names: Annotated[
        Path | None, Parameter(help="JSON list of names of labels 0, 1, ...; default: their numbers.")
    ] = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Directory to write.")],
    epochs: Annotated[int, Parameter(help="Passes over the training sentences.")] = 5,
    learning_rate: Annotated[
        float, Parameter(name="--lr", help="Learning rate; 1e-3 suits models under 1 M parameters.")
    ] = 1e-4,
    batch_size: Annotated[int, Parameter(help="Sentences in one update.")] = 32,
    dropout: Annotated[float, Parameter(help="Probability of dropping a channel before the head.")] = 0.3,
    seed: Annotated[int, Parameter(help="Seed of head, dropout and order.")] = 1337,
    max_sentence_len: MaxTokens = None,
    tokenizer: TokenizerFile = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool, Parameter(negative="", show_default=False, help="Replace an existing classifier.")
    ] = False,
) -> None:
    """Train a classifier of sentences from a model.

    The epoch with the best accuracy on the dev sentences is saved, as a directory that transformers loads too.

    For example:

      tinyllm classify train runs/mine --train train.txt --dev dev.txt -o labels
      tinyllm classify train tiny.bin --train a.txt --dev b.txt -o labels --lr 1e-3
    """
    config = finetune_config(
        epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, dropout=dropout, seed=seed
    )
    check_limit(max_sentence_len)
    check_output_directory(output, model, overwrite=overwrite)
    splits = {"dev": dev} | ({"test": test} if test else {})
    task, predictions = train_with_display(
        model, tokenizer, train, splits, label_names, config, output, device=device, max_tokens=max_sentence_len
    )
    show_task_scores(task, predictions)
    print(f"\nclassifier in {output}")


def predict(
    model: Annotated[Path, Parameter(help="A classifier, or a language model, which answers --question.")],
    sentences: Annotated[
        Path,
        TEXT_OR_DASH,
        Parameter(help="File with a sentence a line, labelled or not; - reads the lines from standard input."),
    ],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="File to write; default: stdout.")] = None,
    label_names: Annotated[
        Path | None, Parameter(help="For a language model: JSON list of the names to choose from.")
    ] = None,
    question: Annotated[
        str | None, Parameter(help="For a language model: text after each sentence; {labels} becomes the names.")
    ] = None,
    batch_size: Annotated[int, Parameter(help="Sentences in one batch.")] = 32,
    max_sentence_len: MaxTokens = None,
    tokenizer: TokenizerFile = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool, Parameter(negative="", show_default=False, help="Replace an existing text file.")
    ] = False,
) -> None:
    """Label sentences, with a classifier or zero-shot.

    Sentences come from a file, or from standard input with -. Writes one line for each: name of the label ||| text.
    If the sentences have labels (label ||| text, by number or name), scores are shown too.

    For example:

      tinyllm classify predict reviews test.txt -o predictions.txt
      echo "a lovely film" | tinyllm classify predict reviews -
      tinyllm classify predict stories42M.pt test.txt --label-names names.json
    """
    check_limit(max_sentence_len)
    if batch_size < 1:
        raise UsageError(f"--batch-size is {batch_size}; at least 1 is needed")
    if output is not None:
        check_prediction_files([output], [sentences, model])
        storage.check_new_file(output, "a text file", storage.is_text, overwrite=overwrite)
    content = _read_sentences(sentences, model)
    question = read_argument(question, "--question") if question else None
    from tinyllm.classification.labeller import label_texts, open_labeller

    labeller = open_labeller(
        model,
        lambda: loading.open_model(model, tokenizer, pick_device(device), note=note),
        label_names,
        question,
        device,
    )
    names = labeller.label_names
    texts, labels = parse_sentences(content, _name_of(sentences), names)
    with Display() as display:
        predictions = label_texts(labeller, texts, max_sentence_len, batch_size, display)
    _write_predictions([names[label] for label in predictions], texts, output)
    if labels is not None:
        console = stderr if output is None else Console(highlight=False, soft_wrap=True)
        show_scores(str(sentences), score(labels, predictions, len(names)), names, console)


def _write_predictions(labels: list[str], texts: list[str], output: Path | None) -> None:
    """Writes one line for each text to `output`, or to standard output if it is None."""
    lines = format_predictions(labels, texts)
    if output is None:
        show(lines, end="")
    else:
        storage.write_file(output, lines)
        note(f"wrote {len(texts):,} predictions to {output}")


def _read_sentences(path: Path, model: Path) -> bytes:
    """The content of a file or of standard input. Raises InputError if there is no such file; it may be a sentence."""
    if path == STANDARD_INPUT:
        return standard_input().read()
    if not path.exists():
        raise InputError(
            f"{path} does not exist; SENTENCES is a file with a sentence a line. To label one text: "
            f"echo {quoted(path)} | tinyllm classify predict {quoted(model)} -"
        )
    return read_bytes(path)


def _name_of(path: Path) -> str:
    return "standard input" if path == STANDARD_INPUT else str(path)
