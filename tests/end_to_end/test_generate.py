"""`tinyllm generate`."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reference_data import STORIES_260K
from tinyllm import model_dir
from tinyllm.cli.app import main
from tinyllm.cli.console import escape_controls
from tinyllm.loading import load_with_torch as load

PROMPT = "Once upon a time"
MakeModelDir = Callable[..., Path]


class Run:
    """Runs the command in this process; `code`, `out` and `err` hold the last result."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code: object = None
        self.out = self.err = ""

    def __call__(self, *arguments: str | Path) -> "Run":
        with pytest.raises(SystemExit) as ended:
            main(["generate", *map(str, arguments)])
        self.code = ended.value.code
        self.out, self.err = self._capsys.readouterr()
        return self


@pytest.fixture
def generate(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


def test_stdout_is_the_prompt_and_its_continuation(generate: Run, make_model_dir: MakeModelDir) -> None:
    path = make_model_dir()
    expected = load(path, device="cpu").generate(PROMPT, max_new_tokens=8, seed=4, temperature=0.5)[0]
    generate(path, PROMPT, "--max-new-tokens", "8", "--seed", "4", "--temperature", "0.5", "--device", "cpu")
    assert generate.code == 0
    assert generate.out == PROMPT + expected.text + "\n"
    assert "8 tokens in" in generate.err


def test_a_terminal_gets_the_same_text_as_a_stream(
    generate: Run, make_model_dir: MakeModelDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_model_dir()
    plain = generate(path, PROMPT, "--max-new-tokens", "20").out
    assert generate(path, PROMPT, "--max-new-tokens", "20", "--stream").out == plain
    writes: list[str] = []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    def record(text: str) -> int:
        writes.append(text)
        return len(text)

    monkeypatch.setattr(sys.stdout, "write", record)
    generate(path, PROMPT, "--max-new-tokens", "20")
    assert "".join(writes) == escape_controls(plain)
    assert len(writes) > 10


def test_json_has_everything(generate: Run, make_model_dir: MakeModelDir) -> None:
    path = make_model_dir()
    generate(path, PROMPT, "--json", "--num-samples", "2", "--max-new-tokens", "9", "--top-k", "5", "--seed", "8")
    result = json.loads(generate.out)
    samples = load(path, device="cpu").generate(PROMPT, num_samples=2, max_new_tokens=9, top_k=5, seed=8)
    assert [s["text"] for s in result["samples"]] == [s.text for s in samples]
    assert [s["token_ids"] for s in result["samples"]] == [s.token_ids for s in samples]
    assert result["samples"][0]["log_probabilities"] == pytest.approx(samples[0].log_probabilities)
    assert result["samples"][0]["finish_reason"] == "length"
    assert (result["model"], result["prompt"], result["seed"], result["slid"]) == (str(path), PROMPT, 8, False)
    assert result["settings"]["top_k"] == 5
    assert result["settings"]["max_new_tokens"] == 9
    assert result["seconds"] > 0
    assert result["tokens_per_second"] == pytest.approx(18 / result["seconds"])
    assert generate.err == ""


def test_samples_are_separated(generate: Run, make_model_dir: MakeModelDir) -> None:
    generate(make_model_dir(), PROMPT, "--num-samples", "3", "--max-new-tokens", "5")
    texts = generate.out.split("\n---\n")
    assert len(texts) == 3
    assert all(text.startswith(PROMPT) for text in texts)


def test_a_sliding_window_gives_one_note(generate: Run, make_model_dir: MakeModelDir) -> None:
    generate(make_model_dir(), PROMPT, "--max-new-tokens", "100")
    assert generate.code == 0
    assert generate.err.count("window slid") == 1
    assert "the context of 32 tokens: the window slid to its last 16" in generate.err


def test_stop_strings_can_be_several(generate: Run, make_model_dir: MakeModelDir) -> None:
    path = make_model_dir()
    plain = generate(path, PROMPT, "--max-new-tokens", "30").out.removeprefix(PROMPT)
    generate(path, PROMPT, "--max-new-tokens", "30", "--stop", plain[8:10], "--stop", plain[4:6])
    assert generate.out == PROMPT + plain[: min(plain.find(plain[4:6]), plain.find(plain[8:10]))] + "\n"


def test_penalties_and_several_biases_are_flags(generate: Run, make_model_dir: MakeModelDir) -> None:
    path = make_model_dir()
    settings: dict[str, Any] = {"max_new_tokens": 12, "presence_penalty": -1.5, "frequency_penalty": 0.5}
    biases = {290: 9.5, 291: -100}
    expected = load(path, device="cpu").generate(PROMPT, logit_bias=biases, temperature=0, **settings)[0]
    flags = ["--presence-penalty", "-1.5", "--frequency-penalty", "0.5", "--logit-bias", "290", "9.5", "291", "-100"]
    generate(path, PROMPT, "--max-new-tokens", "12", "--temperature", "0", "--device", "cpu", *flags)
    assert generate.out == PROMPT + expected.text + "\n"
    assert 290 in expected.token_ids
    for wrong, message in (
        (["290", "x"], "--logit-bias is x; it should be a valid number"),
        (["320", "1"], "--logit-bias names token 320; the ids of this model are 0 to 319"),
        (["5", "1", "5", "2"], "--logit-bias: token 5 occurs twice"),
    ):
        generate(path, PROMPT, "--logit-bias", *wrong)
        assert generate.code == 2
        assert message in generate.err


def test_the_prompt_may_come_from_a_file_or_standard_input(
    generate: Run, make_model_dir: MakeModelDir, tmp_path: Path, pipe_in: Callable[[bytes], None]
) -> None:
    path = make_model_dir()
    (tmp_path / "prompt.txt").write_bytes(PROMPT.encode() + b"\n")
    expected = generate(path, PROMPT, "--max-new-tokens", "5").out
    assert generate(path, f"FILE:{tmp_path / 'prompt.txt'}", "--max-new-tokens", "5").out == expected
    pipe_in(PROMPT.encode() + b"\n")
    assert generate(path, "-", "--max-new-tokens", "5").out == expected
    pipe_in(PROMPT.encode())
    assert generate(path, "--max-new-tokens", "5").out == expected


def test_the_home_folder_of_a_prompt_file_is_expanded(
    generate: Run, make_model_dir: MakeModelDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "prompt.txt").write_text(PROMPT)
    path = make_model_dir()
    expected = generate(path, PROMPT, "--max-new-tokens", "5").out
    assert generate(path, "FILE:~/prompt.txt", "--max-new-tokens", "5").out == expected


def test_the_home_folder_of_a_model_is_expanded(
    generate: Run, make_model_dir: MakeModelDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_model_dir()
    monkeypatch.setenv("HOME", str(path.parent))
    assert generate(f"~/{path.name}", PROMPT, "--max-new-tokens", "5").out.startswith(PROMPT)
    assert generate(f"~/{path.name}", "--unconditional", "--max-new-tokens", "5").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["FILE:"], "FILE: names no file; give FILE:path"), ([PROMPT, "--stop", ""], "--stop: a stop string is empty")],
)
def test_an_empty_name_or_stop_is_refused(
    arguments: list[str], message: str, generate: Run, make_model_dir: MakeModelDir
) -> None:
    assert generate(make_model_dir(), *arguments).code == 2
    assert message in generate.err


def test_every_word_after_two_dashes_is_text(generate: Run, make_model_dir: MakeModelDir) -> None:
    path = make_model_dir()
    assert generate(path, "-dash", "--max-new-tokens", "5").code == 2
    assert "unknown option -dash" in generate.err
    assert generate("--max-new-tokens", "5", "--", path, "-dash").out.startswith("-dash")
    assert generate.code == 0


def test_the_bundled_model_is_the_default_and_is_named(
    generate: Run, make_model_dir: MakeModelDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_dir, "__file__", str(tmp_path / "model_dir.py"))
    assert "no bundled model" in generate(PROMPT).err
    assert generate.code == 1
    (tmp_path / "bundled").mkdir()
    path = make_model_dir("bundled/storybook")
    expected = generate(path, PROMPT, "--max-new-tokens", "5").out
    assert "bundled" not in generate.err.splitlines()[0]
    assert generate(PROMPT, "--max-new-tokens", "5").out == expected
    assert generate.err.splitlines()[0].startswith(f"model: {path} (bundled, 0.0 M parameters")


def test_a_text_needs_no_prompt(generate: Run, make_model_dir: MakeModelDir) -> None:
    path = make_model_dir()
    expected = load(path, device="cpu").generate("", max_new_tokens=6)[0].text
    assert generate(path, "--unconditional", "--max-new-tokens", "6").out == expected + "\n"


@pytest.mark.parametrize("arguments", [["a", "b", "--unconditional"], ["once", "upon", "a", "time"]])
def test_arguments_that_do_not_fit_are_refused(generate: Run, arguments: list[str]) -> None:
    assert generate(*arguments).code == 2
    assert generate.err.count("\n") == 1


@pytest.mark.parametrize("prompt", ["", " ", "\n"])
def test_an_empty_prompt_is_refused_with_a_remedy(generate: Run, make_model_dir: MakeModelDir, prompt: str) -> None:
    assert generate(make_model_dir(), prompt).code == 1
    assert generate.err == (
        "tinyllm: the prompt is empty; give some text, or --unconditional to generate without one\n"
    )


def test_a_prompt_longer_than_the_context_is_refused(generate: Run, make_model_dir: MakeModelDir) -> None:
    assert generate(make_model_dir(), "fox " * 200).code == 1
    assert "tokens, but the model's context is 32; shorten it" in generate.err
    assert generate.out == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "-1"], "--temperature is -1; it should be greater than or equal to 0"),
        (["--top-p", "0"], "--top-p is 0; it should be greater than 0"),
        (["--top-p", "1.2"], "--top-p is 1.2; it should be less than or equal to 1"),
        (["--top-k", "many"], "--top-k is many"),
        (["--max-new-tokens", "0"], "--max-new-tokens is 0"),
        (["--min-p", "1"], "--min-p is 1"),
        (["--repetition-penalty", "0"], "--repetition-penalty is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--num-samples", "0"], "--num-samples is 0; at least 1 is needed"),
        (["--stream", "--json"], "--stream writes one text"),
        (["--stream", "--num-samples", "2"], "--stream writes one text"),
        (["--device", "abacus"], "--device abacus is not a device"),
        (["--dtype", "int4"], "int4"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_a_wrong_flag_gives_one_line(
    generate: Run, make_model_dir: MakeModelDir, flags: list[str], message: str
) -> None:
    assert generate(make_model_dir(), PROMPT, *flags).code == 2
    assert message in generate.err
    assert generate.err.count("\n") == 1
    assert generate.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu_gives_one_line(generate: Run, make_model_dir: MakeModelDir) -> None:
    assert generate(make_model_dir(), PROMPT, "--device", "cuda").code == 2
    assert generate.err == (
        "tinyllm: --device cuda: this machine or this build of PyTorch has none; use --device cpu or auto\n"
    )


def test_a_missing_or_damaged_model_gives_one_line(generate: Run, make_model_dir: MakeModelDir, tmp_path: Path) -> None:
    assert generate(tmp_path / "nowhere", PROMPT).code == 1
    assert "nowhere does not exist" in generate.err
    path = make_model_dir()
    with (path / "model.safetensors").open("r+b") as file:
        file.truncate(5000)
    assert generate(path, PROMPT).code == 1
    assert "model.safetensors is damaged: it has 5000 bytes" in generate.err
    assert generate.err.count("\n") == 1


def test_a_model_with_a_wrong_tokenizer_gives_one_line(generate: Run, make_model_dir: MakeModelDir) -> None:
    path = make_model_dir()
    (path / "manifest.json").unlink()
    shutil.copyfile(STORIES_260K / "tok512.model", path / "tokenizer.model")
    assert generate(path, PROMPT).code == 1
    assert "the model has 320 tokens, the tokenizer has 512" in generate.err
    assert generate.err.count("\n") == 1


def test_unreadable_prompts_are_named(
    generate: Run, make_model_dir: MakeModelDir, tmp_path: Path, pipe_in: Callable[[bytes], None]
) -> None:
    path = make_model_dir()
    assert f"{tmp_path / 'no.txt'} does not exist" in generate(path, f"FILE:{tmp_path / 'no.txt'}").err
    pipe_in(b"Once \xff")
    assert "standard input is not UTF-8 at line 1, byte 5 (0xff, invalid start byte)" in generate(path, "-").err
    pipe_in(b"x" * (2**20 + 1))
    assert "more than 1048576 bytes" in generate(path, "-").err


def test_help_shows_an_example_and_every_flag(generate: Run) -> None:
    generate("--help")
    assert 'tinyllm generate "Once upon a time"' in generate.out
    for flag in ("--max-new-tokens", "--min-p", "--repetition-penalty", "--stop", "--num-samples", "--json"):
        assert flag in generate.out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_too_many_samples_give_one_line_with_the_bytes(generate: Run, make_model_dir: MakeModelDir, dtype: str) -> None:
    generate(make_model_dir(), PROMPT, "--device", "cpu", "--dtype", dtype, "--num-samples", "10000000000000")
    assert generate.code == 1
    lines = [line for line in generate.err.splitlines() if not line.startswith("compiling")]
    assert len(lines) == 1
    assert "bytes) of memory are needed" in lines[0]
    assert "use fewer samples" in lines[0]


def test_a_failed_allocation_gives_one_line(
    generate: Run, make_model_dir: MakeModelDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64000000 bytes.")

    monkeypatch.setattr("tinyllm.cli.model_options.load", refuse)
    generate(make_model_dir(), PROMPT)
    assert (generate.code, generate.out) == (1, "")
    assert generate.err.startswith("tinyllm: the memory is not enough: 64000000 bytes were asked for at once")
    assert generate.err.count("\n") == 1
