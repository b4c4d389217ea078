"""`tinyllm classify`, and both classifying options of `run_llama.py`."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm.cli.classification import FinetuneDisplay
from tinyllm.course import run_llama
from tinyllm.progress import Progress

Run = Callable[..., tuple[int, str, str]]
ANIMALS = ("fox", "bear", "owl", "cat")


@pytest.fixture
def run(in_empty_folder: Callable[..., Run]) -> Run:
    return in_empty_folder(run_llama.main)


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Flags for small data: sentences with `red` have label 1, others label 0."""
    for name, num_lines in {"train": 48, "dev": 12, "test": 9}.items():
        lines = [f"{i % 3 and 1} ||| the {ANIMALS[i % 4]} saw a {'red' if i % 3 else 'cat'}" for i in range(num_lines)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "names.json").write_text('["grey", "red"]')
    return ["--train", "train.txt", "--dev", "dev.txt", "--test", "test.txt", "--label-names", "names.json"]


@pytest.fixture
def model(make_model_dir: Callable[..., Path]) -> list[object]:
    return ["--pretrained-model-path", make_model_dir(context_length=128)]


def outputs(what: str) -> list[object]:
    return ["--dev_out", f"x-dev-{what}-output.txt", "--test_out", f"x-test-{what}-output.txt"]


def read_predictions(path: Path) -> tuple[list[str], list[str]]:
    labels, _, texts = zip(*(line.partition(" ||| ") for line in path.read_text("utf-8").splitlines()), strict=True)
    return list(labels), list(texts)


def test_prompt_writes_and_scores_predictions(
    run: Run, files: list[object], model: list[object], tmp_path: Path
) -> None:
    code, out, err = run("--option", "prompt", *files, *model, *outputs("prompting"))
    assert (code, err) == (0, "")
    assert out.startswith(
        "load 48 data from train.txt\nload 12 data from dev.txt\nload 9 data from test.txt\nload model"
    )
    labels, texts = read_predictions(tmp_path / "x-dev-prompting-output.txt")
    expected, sentences = read_predictions(tmp_path / "dev.txt")
    assert texts == sentences
    accuracy = sum(a == b for a, b in zip(labels, expected, strict=True)) / 12
    assert f"dev acc :: {accuracy:.3f}\n" in out
    assert "always 'red': accuracy 0.667, macro F1 0.400" in out
    assert "true \\ predicted  grey  red" in out


def test_finetune_learns_writes_and_continues(
    run: Run, call_tinyllm: Run, files: list[object], model: list[object], tmp_path: Path
) -> None:
    flags = ["--option", "finetune", *files, *outputs("finetuning"), "--batch_size", 4]
    code, out, err = run(*flags, *model, "--epochs", 3, "--lr", 0.01)
    assert (code, err) == (0, "")
    assert "epoch 2: train loss :: " in out
    assert "test acc :: 1.000\n" in out
    assert read_predictions(tmp_path / "x-test-finetuning-output.txt") == read_predictions(tmp_path / "test.txt")
    code, out, _ = run(*flags, "--pretrained-model-path", "finetune-3-0.01", "--epochs", 1, "--lr", 1e-6)
    assert (code, "epoch 0: train loss" in out, "dev acc :: 1.000" in out) == (0, True, True)
    code, out, err = call_tinyllm("generate", "finetune-3-0.01", "the fox")
    assert (code, err.count("\n")) == (1, 1)
    assert "finetune-3-0.01 holds a classifier, which gives labels and no text" in err


def test_classify_trains_and_predicts(
    call_tinyllm: Run, files: list[object], model: list[object], tmp_path: Path
) -> None:
    settings = ["--lr", 0.01, "--epochs", 3, "--batch-size", 4]
    code, out, _ = call_tinyllm("classify", "train", model[1], *files, "-o", "colours", *settings)
    assert (code, "classifier in colours" in out) == (0, True)
    code, out, err = call_tinyllm("classify", "predict", "colours", "-", stdin="the owl saw a red\nthe owl saw a cat\n")
    assert (code, out, err) == (0, "red ||| the owl saw a red\ngrey ||| the owl saw a cat\n", "")
    code, out, err = call_tinyllm("classify", "predict", "colours", "test.txt", "-o", "out.txt")
    assert (code, err) == (0, "wrote 9 predictions to out.txt\n")
    assert "test.txt: accuracy 1.000, macro F1 1.000 on 9 sentences" in out
    code, out, err = call_tinyllm(
        "classify", "predict", "colours", "out.txt"
    )  # predicts on its own output, which has label names
    assert (code, out) == (0, (tmp_path / "out.txt").read_text())
    assert "out.txt: accuracy 1.000" in err
    flags = ["--label-names", "names.json", "--question", "it is {labels}: "]
    code, out, _ = call_tinyllm("classify", "predict", model[1], "test.txt", *flags)
    assert (code, out.count(" ||| ")) == (0, 9)


def test_a_stopped_training_goes_on_with_the_same_command(
    call_tinyllm: Run, files: list[object], model: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["--lr", 0.01, "--epochs", 2, "--batch-size", 4]
    command = ["classify", "train", model[1], *files, *settings, "-o"]
    code, whole, err = call_tinyllm(*command, "whole")
    assert (code, err) == (0, "")
    before = sorted(tmp_path.iterdir())
    advance = FinetuneDisplay.advance

    def stop(self: FinetuneDisplay, progress: Progress) -> None:
        advance(self, progress)
        if progress.done == 14:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(FinetuneDisplay, "advance", stop)
        code, out, err = call_tinyllm(*command, "colours")
    assert code == 143
    assert err.endswith("tinyllm: stopped in epoch 1 and saved; the same command goes on from there\n")
    assert "epoch 0: " in out
    (draft,) = {path for path in tmp_path.iterdir() if path not in before}
    assert draft.name.endswith(".draft")
    code, out, err = call_tinyllm(*command, "colours")
    assert (code, err) == (0, "going on from the stopped training, after 14 of 24 updates\n")
    assert out.splitlines()[-1] == "classifier in colours"
    assert out[out.index("epoch 1: ") :].replace("colours", "whole") == whole[whole.index("epoch 1: ") :]
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "colours" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "colours"])


def test_a_text_in_place_of_a_file_gets_the_right_command(call_tinyllm: Run, model: list[object]) -> None:
    code, out, err = call_tinyllm("classify", "predict", model[1], "a lovely film")
    assert (code, out) == (1, "")
    assert err == (
        "tinyllm: a lovely film does not exist; SENTENCES is a file with a sentence a line. To label one text: "
        f"echo 'a lovely film' | tinyllm classify predict {model[1]} -\n"
    )


def test_long_sentences_are_cut_with_one_note(run: Run, files: list[object], model: list[object]) -> None:
    flags = [*files, *model, *outputs("finetuning"), "--epochs", 1, "--max_sentence_len", 4]
    code, _, err = run("--option", "finetune", *flags)
    assert (code, err) == (0, "69 of 69 sentences are longer than 4 tokens; their ends were cut off\n")


@pytest.mark.parametrize(
    ("option", "arguments", "message"),
    [
        ("prompt", ["--dev", "none.txt"], "cannot read none.txt: No such file"),
        ("finetune", ["--test", "broken.txt"], "broken.txt, line 2: label 7 is unknown; there are 2 labels, 0 to 1"),
        ("prompt", ["--label-names", "broken.txt"], "broken.txt is not valid JSON"),
        ("prompt", ["--dev_out", "out.txt"], "--dev_out is out.txt; its name must end with dev-prompting-output.txt"),
        ("finetune", ["--test_out", "x-test-prompting-output.txt"], "must end with test-finetuning-output.txt"),
        ("prompt", ["--dev_out", "test.txt/x-dev-prompting-output.txt"], "test.txt is a file, not a directory"),
        ("prompt", ["--max_sentence_len", "1"], "--max_sentence_len is 1; at least 2"),
        ("prompt", ["--batch_size", "0"], "--batch_size is 0"),
        ("finetune", ["--batch_size", "0"], "--batch-size is 0; it should be greater than 0"),
        ("finetune", ["--hidden_dropout_prob", "1"], "dropout is 1.0; it should be less than 1"),
        ("finetune", ["--model_out", "data"], "will not replace data"),
        ("finetune", ["--pretrained-model-path", "none.pt"], "none.pt does not exist"),
    ],
)
def test_errors_come_before_any_work_in_one_line(
    option: str, arguments: list[str], message: str, run: Run, files: list[object], model: list[object], tmp_path: Path
) -> None:
    (tmp_path / "broken.txt").write_text("1 ||| good\n7 ||| odd\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").touch()
    before = sorted(tmp_path.iterdir())
    flags = [*files, *model, *outputs("prompting" if option == "prompt" else "finetuning")]
    for flag, value in zip(arguments[::2], arguments[1::2], strict=True):
        flags = [*flags[: flags.index(flag)], *flags[flags.index(flag) + 2 :]] if flag in flags else flags
        flags += [flag, value]
    code, out, err = run("--option", option, *flags)
    assert (code > 0, err.count("\n"), "epoch" in out) == (True, 1, False)
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


def test_a_classifier_keeps_its_labels(
    call_tinyllm: Run, files: list[object], model: list[object], tmp_path: Path
) -> None:
    train = ["--train", "train.txt", "--dev", "dev.txt", "--epochs", 1]
    assert call_tinyllm("classify", "train", model[1], *train, "-o", "numbers")[0] == 0
    labels = json.loads((tmp_path / "numbers" / "config.json").read_bytes())["id2label"]
    assert labels == {"0": "0", "1": "1"}
    code, _, err = call_tinyllm("classify", "train", "numbers", *files, "-o", "named")
    assert code == 1
    assert "numbers is a classifier of 0, 1, not of grey, red" in err
    code, _, err = call_tinyllm("classify", "train", "numbers", *train, "-o", "numbers")
    assert (code, "numbers is the model to start from" in err) == (2, True)
    code, _, err = call_tinyllm("classify", "predict", model[1], "test.txt")
    assert (code, "a language model needs --label-names" in err) == (2, True)
    code, _, err = call_tinyllm("classify", "predict", "numbers", "test.txt", "-o", "test.txt")
    assert (code, "test.txt is an input" in err) == (2, True)
