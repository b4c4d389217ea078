"""`tinyllm import`, `tinyllm export`, and commands that take a model, on models of other tools."""

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(call_tinyllm: Run) -> Run:
    return call_tinyllm


def test_export_and_import_round_trip(run: Run, make_model_dir: Callable[..., Path], tmp_path: Path) -> None:
    source = make_model_dir("source")
    code, out, err = run("export", source, "--to", "llama2c", "-o", "model.bin")
    assert code == 0
    assert "wrote model.bin" in out
    assert "with tokenizer.bin); largest logit difference 0 of" in out
    assert "Hugging Face directory (F32)" in err
    code, out, err = run("import", "model.bin", "-o", "back")
    assert (code, "llama2.c .bin version 0" in err) == (0, True)
    weights = "model.safetensors"
    assert (tmp_path / "back" / weights).stat().st_size == (source / weights).stat().st_size


@pytest.mark.parametrize("target", ["llama2c-q8", "pt", "gguf-q8", "safetensors-fp16"])
def test_commands_accept_model_files(target: str, run: Run, make_model_dir: Callable[..., Path]) -> None:
    run("export", make_model_dir(), "--to", target, "-o", "copy")
    code, out, _ = run("generate", "copy", "Once upon", "--max-new-tokens", 5, "--device", "cpu")
    assert (code, out.startswith("Once upon")) == (0, True)
    code, out, _ = run("info", "copy")
    assert (code, "parameters" in out) == (0, True)


@pytest.mark.parametrize("target", ["llama2c", "llama2c-v1", "llama2c-q8", "pt", "gguf-f16", "safetensors-bf16"])
def test_a_width_of_128_is_read_by_every_command(target: str, run: Run, make_model_dir: Callable[..., Path]) -> None:
    """A llama2.c file of version 0 with the bundled model's width of 128 begins with the byte of a pickle."""
    run("export", make_model_dir(hidden_size=128, num_layers=1), "--to", target, "-o", "copy")
    for command in (["generate", "copy", "Once", "--max-new-tokens", 2, "--device", "cpu"], ["info", "copy"]):
        assert run(*command)[0] == 0
    assert run("import", "copy", "-o", "back")[0] == 0


def test_a_page_is_written_and_is_a_model(run: Run, make_model_dir: Callable[..., Path], tmp_path: Path) -> None:
    source = make_model_dir()
    code, out, _ = run(
        "export", source, "--to", "html", "-o", "story.html", "--title", "Our <model>", "--prompt", "Once"
    )
    assert (code, "wrote story.html (" in out) == (0, True)
    assert "<title>Our &lt;model&gt;</title>" in (tmp_path / "story.html").read_text(encoding="utf-8")
    code, out, _ = run("generate", "story.html", "Once upon", "--max-new-tokens", 5, "--device", "cpu")
    assert (code, out.startswith("Once upon")) == (0, True)
    code, _, err = run("export", source, "--to", "gguf", "-o", "x.gguf", "--title", "x")
    assert (code, "--title does not fit gguf; it requires --to html or html-bf16" in err) == (2, True)


def test_a_tokenizer_bin_is_a_tokenizer(run: Run, make_model_dir: Callable[..., Path]) -> None:
    source = make_model_dir()
    run("export", source, "--to", "llama2c", "-o", "model.bin")
    code, out, _ = run("tokenizer", "encode", "the fox", "--tokenizer", "tokenizer.bin")
    assert (code, out) == run("tokenizer", "encode", "the fox", "--tokenizer", source)[:2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["import", "none.bin", "-o", "x"], 1, "none.bin does not exist"),
        (
            ["import", "notes.txt", "-o", "x"],
            1,
            "notes.txt is not GGUF, .pt, a Hugging Face directory or llama2.c .bin",
        ),
        (["export", "{model}", "--to", "onnx", "-o", "x"], 2, "--to onnx is not a format; choose llama2c,"),
        (["export", "{model}", "--to", "gguf", "-o", "{model}"], 1, "is there and is not a file"),
    ],
)
def test_errors_give_one_line(
    arguments: list[str], code: int, message: str, run: Run, make_model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("some text that is long enough to be taken for a header")
    model = make_model_dir()
    found, out, err = run(*(argument.format(model=model) for argument in arguments))
    assert (found, out) == (code, "")
    assert message in err
    assert err.splitlines()[-1].startswith("tinyllm: ")


def test_help_shows_an_example(run: Run) -> None:
    for command in ("import", "export"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert f"tinyllm {command} " in out
