"""`python run_llama.py --option prompt` and `--option finetune`: the course's two ways to classify sentences.

Flags, defaults and file names are the course's, with one exception. The course requires file names of predictions that
contain the option, but its defaults contain `prompt` for both; here each option has its own defaults.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tinyllm import loading, storage
from tinyllm.classification.examples import format_predictions, read_label_names
from tinyllm.classification.scores import score
from tinyllm.classification.task import Task, check_limit, encode_all, finetune_config, read_task
from tinyllm.cli.classification import (
    check_output_directory,
    check_prediction_files,
    show_task_scores,
    train_with_display,
)
from tinyllm.cli.console import note
from tinyllm.cli.progress import Display
from tinyllm.course.run_llama_generate import default_model
from tinyllm.errors import UsageError
from tinyllm.machine.device import pick_device

Train = Annotated[Path, Parameter(help="Training sentences, one a line: label ||| text.")]
Dev = Annotated[Path, Parameter(help="Dev sentences.")]
Test = Annotated[Path, Parameter(help="Test sentences.")]
ModelPath = Annotated[
    Path | None, Parameter(help="Model of any format; default: stories42M.pt, else the bundled model.")
]
TokenizerFile = Annotated[
    Path | None, Parameter(help="Default: inside or next to the model, else tokenizer.model in this folder.")
]
MaxTokens = Annotated[
    int | None,
    Parameter(help="Cut sentences to this many tokens, BOS included; default: the longest that fits the context."),
]
Gpu = Annotated[bool, Parameter(negative="", show_default=False, help="Run on the GPU.")]
BatchSize = Annotated[int, Parameter(help="Sentences in a batch.")]


def prompt(
    *,
    train: Train = Path("data/cfimdb-train.txt"),
    dev: Dev = Path("data/cfimdb-dev.txt"),
    test: Test = Path("data/cfimdb-test.txt"),
    label_names: Annotated[Path, Parameter(help="JSON list of the labels' names.")] = Path(
        "data/cfimdb-label-mapping.json"
    ),
    pretrained_model_path: ModelPath = None,
    tokenizer: TokenizerFile = None,
    max_sentence_len: MaxTokens = None,
    seed: Annotated[int, Parameter(help="A flag of the course, without effect here.")] = 1337,  # noqa: ARG001
    use_gpu: Gpu = False,
    dev_out: Annotated[Path, Parameter(help="File of predictions.")] = Path("cfimdb-dev-prompting-output.txt"),
    test_out: Annotated[Path, Parameter(help="File of predictions.")] = Path("cfimdb-test-prompting-output.txt"),
    batch_size: BatchSize = 8,
) -> None:
    """Classify sentences by the most probable label after a question.

    The question is `Is this movie bad or good? This movie is `, with the names of the labels. The prediction is the
    label whose name has the largest log-probability after it, summed over its tokens. Nothing is trained: training
    sentences only give the most frequent label, for comparison.

    For example:

      python run_llama.py --option prompt --label-names names.json
      python run_llama.py --option prompt --pretrained-model-path tiny.bin
    """
    if batch_size < 1:
        raise UsageError(f"--batch_size is {batch_size}; it must be at least 1")
    check_limit(max_sentence_len)
    outputs = _check_outputs(dev_out, test_out, "prompting", [train, dev, test, label_names])
    device = pick_device("cuda" if use_gpu else "cpu")
    names = read_label_names(label_names)
    task = read_task(train, {"dev": dev, "test": test}, names, print)
    from tinyllm.classification.batches import predict
    from tinyllm.classification.zero_shot import QUESTION, ZeroShot

    path = pretrained_model_path or default_model()
    model, codec = loading.open_model(path, tokenizer, device, note=note)
    print(f"load model from {path}")
    zero_shot = ZeroShot(model, codec, names, QUESTION)
    limit = min(max_sentence_len or zero_shot.row_limit, zero_shot.row_limit)
    rows = encode_all({name: [e.text for e in examples] for name, examples in task.splits.items()}, codec, limit, note)
    with Display() as display:
        predictions = {
            name: predict(zero_shot.score_rows, rows[name], batch_size, display, name) for name in task.splits
        }
    _write_predictions(task, predictions, outputs)


def finetune(
    *,
    train: Train = Path("data/cfimdb-train.txt"),
    dev: Dev = Path("data/cfimdb-dev.txt"),
    test: Test = Path("data/cfimdb-test.txt"),
    label_names: Annotated[
        Path | None, Parameter(help="JSON list of the labels' names; default: the label numbers.")
    ] = None,
    pretrained_model_path: ModelPath = None,
    tokenizer: TokenizerFile = None,
    max_sentence_len: MaxTokens = None,
    seed: Annotated[int, Parameter(help="Seed of head, dropout and order.")] = 1337,
    epochs: Annotated[int, Parameter(help="Passes over the training sentences.")] = 10,
    use_gpu: Gpu = False,
    dev_out: Annotated[Path, Parameter(help="File of predictions.")] = Path("cfimdb-dev-finetuning-output.txt"),
    test_out: Annotated[Path, Parameter(help="File of predictions.")] = Path("cfimdb-test-finetuning-output.txt"),
    model_out: Annotated[
        Path | None, Parameter(help="Directory of the classifier; default: finetune-EPOCHS-LR.")
    ] = None,
    batch_size: BatchSize = 8,
    hidden_dropout_prob: Annotated[float, Parameter(help="Probability of dropping a channel before the head.")] = 0.3,
    lr: Annotated[float, Parameter(help="Learning rate; 1e-3 suits models under 1 M parameters.")] = 1e-5,
) -> None:
    """Train a classifier of sentences from the model.

    A linear head reads the hidden state of each sentence's last token; all weights are trained. The epoch with the best
    accuracy on the dev sentences is saved, and labels dev and test sentences at the end.

    For example:

      python run_llama.py --option finetune --epochs 5 --lr 2e-5
      python run_llama.py --option finetune --lr 1e-3 --batch_size 32
    """
    config = finetune_config(
        epochs=epochs, learning_rate=lr, batch_size=batch_size, dropout=hidden_dropout_prob, seed=seed
    )
    check_limit(max_sentence_len)
    inputs = [path for path in (train, dev, test, label_names) if path]
    outputs = _check_outputs(dev_out, test_out, "finetuning", inputs)
    path = pretrained_model_path or default_model()
    directory = model_out or Path(f"finetune-{epochs}-{lr}")
    check_output_directory(directory, path, overwrite=True)
    device, splits = "cuda" if use_gpu else "cpu", {"dev": dev, "test": test}
    task, predictions = train_with_display(
        path, tokenizer, train, splits, label_names, config, directory, device=device, max_tokens=max_sentence_len
    )
    print(f"save the model to {directory}")
    _write_predictions(task, predictions, outputs)


def _check_outputs(dev_out: Path, test_out: Path, what: str, inputs: list[Path]) -> dict[str, Path]:
    """The files of dev and test predictions. Raises UsageError for names that the course does not accept."""
    outputs = {"dev": dev_out, "test": test_out}
    for name, path in outputs.items():
        ending = f"{name}-{what}-output.txt"
        if not path.name.endswith(ending):
            raise UsageError(f"--{name}_out is {path}; its name must end with {ending}, such as sst-{ending}")
    check_prediction_files(outputs.values(), inputs)
    return outputs


def _write_predictions(task: Task, predictions: dict[str, list[int]], outputs: dict[str, Path]) -> None:
    """Prints the course's lines, writes its files, and prints the scores."""
    for name, examples in task.splits.items():
        found = score([example.label for example in examples], predictions[name], len(task.label_names))
        print(f"{name} acc :: {found.accuracy:.3f}")
        storage.write_file(outputs[name], format_predictions(predictions[name], [e.text for e in examples]))
    show_task_scores(task, predictions)
