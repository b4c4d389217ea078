"""`tinyllm evaluate` as a person types it, on the bundled model and on stories260K."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tinyllm
from reference_data import STORIES_260K
from tinyllm.errors import ConfigError

Call = Callable[..., tuple[int, str, str]]
MODEL = STORIES_260K / "stories260K.bin"


def test_two_models_are_compared_on_text_and_tasks(call_tinyllm: Call, tiny_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Once upon a time there was a girl named Lily. She had a kite.\n")
    records = [
        {"good": "Lily was a kind girl.", "bad": "Lily were a kind girl.", "group": "agreement"},
        {"context": "Once upon a time, there", "choices": ["was", "blue"], "answer": "was"},
        {"context": "Once upon a", "answer": "time"},
    ]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, records)))
    code, out, err = call_tinyllm(
        *("evaluate", tinyllm.load().path, MODEL, "--text", "text.txt", "--tasks", "tasks.jsonl"),
        *("--data", tiny_shards, "--no-pairs", "--num-samples", 3, "--max-new-tokens", 40, "--seed", 3),
    )
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split() == ["storybook", "stories260K.bin"]
    assert max(map(len, lines)) <= 80
    bits = next(line.split()[-2:] for line in lines if line.startswith("  text.txt"))
    assert all(0.2 < float(value) < 3 for value in bits)
    assert next(line.split()[-2:] for line in lines if line.startswith("  agreement")) == ["100.0", "100.0"]
    assert next(line.split()[-2:] for line in lines if line.startswith("  tasks,  by") or "by bytes" in line)
    assert "samples: 3 texts of each model" in lines
    assert any("longest copy, tokens" in line for line in lines)


def test_json_and_markdown_have_the_same_figures(call_tinyllm: Call, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Once upon a time there was a girl named Lily.")
    options = ("--text", "text.txt", "--no-pairs", "--num-samples", 0)
    code, out, err = call_tinyllm("evaluate", MODEL, *options, "--json")
    assert code == 0, err
    (model,) = json.loads(out)["models"]
    assert model["num_parameters"] == 260_032
    assert model["samples"] is None
    code, out, _ = call_tinyllm("evaluate", MODEL, *options, "--markdown")
    assert code == 0
    assert f"| text.txt | {model['texts']['text.txt']['bits_per_byte']:.3f} |" in out.splitlines()
    report = tinyllm.evaluate(MODEL, text=tmp_path / "text.txt", pairs=False, num_samples=0)
    assert report.to_dict()["models"] == [model]


@pytest.mark.slow
def test_the_built_in_pairs_show_what_a_model_learned(call_tinyllm: Call) -> None:
    code, out, err = call_tinyllm("evaluate", tinyllm.load().path, MODEL, "--num-samples", 0, "--json")
    assert code == 0, err
    bundled, stories = (model["tasks"]["storybook pairs"] for model in json.loads(out)["models"])
    assert len(bundled) == len(stories) == 10
    assert min(group["accuracy"] for group in bundled) >= 0.95
    assert all(0.5 < group["accuracy"] < 1 for group in stories)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing does not exist"),
        (["--json", "--markdown"], "--json and --markdown are two forms of the same result"),
        (["--num-samples", "-1"], "--num-samples is -1; give 0 or more"),
        (["--no-pairs", "--num-samples", "0"], "there is nothing to measure"),
        (["--text", "empty.txt"], "empty.txt has no text to score"),
        (["--tasks", "bad.jsonl"], "bad.jsonl, line 1: field bad is missing; give a text in quotes"),
        (["--data", "empty.txt"], "empty.txt is text, not shards"),
    ],
)
def test_wrong_calls_end_in_one_line(arguments: list[str], message: str, call_tinyllm: Call, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bad.jsonl").write_text('{"good": "a"}\n')
    code, out, err = call_tinyllm("evaluate", *arguments)
    assert code != 0
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err


def test_settings_are_checked_first() -> None:
    with pytest.raises(ConfigError, match="num_samples is -1"):
        tinyllm.evaluate(num_samples=-1)
    with pytest.raises(ConfigError, match="temperature"):
        tinyllm.evaluate(temperature=-2)
