"""`python run_llama.py`: printed lines, files, and errors before any work."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tinyllm
from reference_data import STORIES_260K, reduced_tokenizer
from tinyllm.course import run_llama, run_llama_generate

ROOT = Path(__file__).parent.parent.parent
LOW, HIGH = "generated-sentence-temp-0.txt", "generated-sentence-temp-1.txt"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(in_empty_folder: Callable[..., Run]) -> Run:
    return in_empty_folder(run_llama.main)


@pytest.fixture
def model(make_model_dir: Callable[..., Path]) -> Path:
    """A model whose context holds the default prefix, which this tokenizer encodes as bytes."""
    return make_model_dir(context_length=256)


def test_the_default_lines_and_files(run: Run, model: Path, tmp_path: Path) -> None:
    code, out, _ = run("--option", "generate", "--pretrained-model-path", model, "--metadata", "none")
    assert code == 0
    low, high = ((tmp_path / name).read_text(encoding="utf-8") for name in (LOW, HIGH))
    assert low.startswith(run_llama_generate.DEFAULT_PREFIX)
    assert out == (
        f"load model from {model}\n"
        f"Temperature is 0.0\n{low}\n---------------\nWrote generated sentence to {LOW}.\n"
        f"Temperature is 1.0\n{high}\n---------------\nWrote generated sentence to {HIGH}.\n"
    )


def test_a_stream_prints_the_same(run: Run, model: Path) -> None:
    flags = [
        "--pretrained-model-path",
        model,
        "--prefix",
        "Once upon",
        "--top-k",
        40,
        "--top-p",
        0.9,
        "--max_new_tokens",
        9,
    ]
    assert run(*flags)[1] == run("--option=generate", *flags, "--stream")[1]


def test_the_header_records_the_settings_of_a_file(run: Run, model: Path, tmp_path: Path) -> None:
    run("--pretrained-model-path", model, "--seed", 7, "--top-k", 5, "--max_new_tokens", 3, "--prefix", "the fox")
    header, _, text = (tmp_path / HIGH).read_text(encoding="utf-8").partition("\n\n")
    facts = dict(line.removeprefix("# ").split(": ", 1) for line in header.splitlines())
    assert facts.keys() == {"time", "model", "checksum", "tokenizer", "seed", "settings", "prompt"}
    assert re.fullmatch(r"SHA-256 of model.safetensors [0-9a-f]{64}", facts["checksum"])
    assert facts["seed"] == "7"
    assert facts["settings"] == "max_new_tokens 3, temperature 1, top_k 5, top_p 1"
    assert text.startswith("the fox")


def test_each_temperature_has_its_own_file(run: Run, model: Path, tmp_path: Path) -> None:
    flags = ["--pretrained-model-path", model, "--max_new_tokens", 2, "--prefix", "the"]
    code, out, _ = run(*flags, "--temperature", 0.2, 0.7, 1.5, "--generated_sentence_low_temp_out", "low.txt")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("Temp")] == [
        f"Temperature is {t}" for t in (0.2, 0.7, 1.5)
    ]
    written = {path.name for path in tmp_path.glob("*.txt")}
    assert written == {"low.txt", "generated-sentence-temp-0.7.txt", "generated-sentence-temp-1.5.txt"}


def test_the_prefix_is_cut_to_max_tokens(run: Run, model: Path, tmp_path: Path) -> None:
    flags = ["--pretrained-model-path", model, "--max_new_tokens", 1, "--prefix", "Once upon a time"]
    run(*flags, "--max_sentence_len", 2, "--temperature", 0)
    header, _, text = (tmp_path / LOW).read_text(encoding="utf-8").partition("\n\n")
    assert "# prompt: 2 tokens" in header
    assert not text.startswith("Once upon a time")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--option", "dance"], 2, "--option dance does not exist; choose generate"),
        (["--option"], 2, "--option has no value"),
        pytest.param(
            ["--use_gpu"],
            2,
            "--use_gpu: this machine or this build of PyTorch has none; leave --use_gpu out",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here"),
        ),
        (["--option", "generate", "--option=generate"], 2, "--option is given 2 times"),
        (["--pretrained-model-path", "none.pt"], 1, "none.pt does not exist"),
        (["--pretrained-model-path", "broken.pt"], 1, "broken.pt is not a whole zip archive"),
        (["--tokenizer", "none.model"], 1, "none.model does not exist"),
        (["--generated_sentence_low_temp_out", "broken.pt/x"], 1, "broken.pt is a file, not a directory"),
        (["--generated_sentence_low_temp_out", "."], 2, "is a directory; name a file"),
        (["--generated_sentence_low_temp_out", HIGH], 2, "would be written to the same file"),
        (["--temperature", "1", "1"], 2, "--temperature repeats a value"),
        (["--temperature", "-1"], 2, "--temperature is -1"),
        (["--top-p", "2"], 2, "--top-p is 2.0; it should be"),
        (["--max_sentence_len", "0"], 2, "--max_sentence_len is 0"),
    ],
)
def test_errors_give_one_line_and_leave_no_file(
    arguments: list[str], code: int, message: str, run: Run, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 and no more")
    if "--pretrained-model-path" not in arguments and "--option" not in arguments:
        arguments = [*arguments, "--pretrained-model-path", str(model)]
    found, _, err = run(*arguments)
    assert (found, err.count("\n")) == (code, 1)
    assert message in err
    assert list(tmp_path.glob("*.txt")) == []


def test_without_a_checkpoint_the_bundled_model_is_used(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run_llama_generate, "bundled_model", lambda: model)
    code, out, err = run("--max_new_tokens", 1)
    assert code == 0
    assert "stories42M.pt is not in this folder, so the bundled model is used; to use it, download" in err
    assert out.startswith(f"load model from {model}\n")


def test_the_programs_of_the_root_run(tmp_path: Path) -> None:
    """Runs them as processes from another folder, with the numbers of the course's document."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"}

    def call(program: str, *arguments: object) -> str:
        command = [sys.executable, str(ROOT / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
        return done.stdout.decode()

    (tmp_path / "llama2.model").write_bytes(reduced_tokenizer("llama2"))
    counted = call("count_words_tokens.py", "--tokenizer", "llama2.model")
    first, *numbers = counted.splitlines()
    assert first.startswith("文本: a man of few words, but when he speaks")
    assert numbers == ["单词数: 54", "Token数: 71"]
    stories = STORIES_260K / "stories260K.bin"
    said = call("run_llama.py", "--option", "generate", "--pretrained-model-path", stories, "--max_new_tokens", 5)
    assert f"Wrote generated sentence to {HIGH}." in said
    assert "--option generate" in call("run_llama.py", "--help")


@pytest.mark.parametrize("flags", [[], ["--stream"]])
def test_files_are_written_when_the_reader_of_the_output_leaves(model: Path, tmp_path: Path, flags: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = "import sys; from tinyllm.course.run_llama import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "--option", "generate", "--pretrained-model-path", str(model), *flags]
    environment = {**os.environ, "PYTHONPATH": str(Path(tinyllm.__file__).parents[1])}
    process = subprocess.run(
        [*command, "--max_new_tokens", "3"], stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path, env=environment
    )
    os.close(writer)
    assert b"Traceback" not in process.stderr
    assert len(list(tmp_path.glob("generated-sentence-temp-*.txt"))) == 2, process.stderr
