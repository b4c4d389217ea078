"""The table fits into 80 columns, Markdown has the same figures, and JSON has all of them."""

import json
from pathlib import Path

import pytest

from tinyllm.config import ModelConfig
from tinyllm.evaluation.comparison import ModelFigures
from tinyllm.evaluation.copied import SHORTEST_TOKENS
from tinyllm.evaluation.perplexity import TextFigures
from tinyllm.evaluation.report import Report
from tinyllm.evaluation.samples import Copies, SampleMeasures
from tinyllm.evaluation.scores import GroupScore


def figures(path: str, bits: float = 1.25, longest: int = 30) -> ModelFigures:
    scores = [
        GroupScore("agreement", "pairs", 100, 0.91, None, None, 0.5),
        GroupScore("a group with a name that is longer than the column", "pairs", 300, 0.5, None, None, 0.5),
        GroupScore("quiz", "choices", 4, 0.25, 0.75, None, 0.25),
        GroupScore("quiz", "cloze", 4, 0.5, None, 2.5, None),
    ]
    copies = Copies(longest, longest / 2, 0.4, 1, "the longest span")
    samples = SampleMeasures(5, 101.5, 0.4, {1: 0.3, 2: 0.6, 3: 0.9}, 0.01, copies)
    config = ModelConfig(vocab_size=320, hidden_size=32, num_layers=1, num_heads=2)
    texts = {"my.txt": TextFigures(1, 1_000, 300, bits, 800.0)}
    return ModelFigures(Path(path), config, "abc", texts, {"storybook pairs": scores}, samples)


def test_models_stand_side_by_side() -> None:
    lines = str(Report((figures("/runs/mine/model"), figures("/runs/other", 2.0, longest=0)))).splitlines()
    assert lines[0].split() == ["mine", "other"]
    assert max(map(len, lines)) <= 80
    table = {tuple(line.split("  ")[0:2]): line.split()[-2:] for line in lines}
    assert table["", "my.txt"] == ["1.250", "2.000"]
    assert table["", "agreement"] == ["91.0", "91.0"]
    assert table["", "all"] == ["60.2", "60.2"]
    assert table["", "quiz, by bytes"] == ["75.0", "75.0"]
    assert table["", "quiz, bits per byte"] == ["2.500", "2.500"]
    assert table["", "accepted by the storybook, %"] == ["40.0", "40.0"]
    assert [line.split()[-3:] for line in lines if "longest copy, tokens" in line] == [
        ["30", "under", str(SHORTEST_TOKENS)]
    ]
    assert "storybook pairs: % with the good text likelier (a guess: 50)" in lines
    assert "storybook pairs: % right (a guess: 25)" in lines


@pytest.mark.parametrize("num_models", [1, 5, 12])
def test_many_models_continue_below(num_models: int) -> None:
    models = tuple(figures(f"/runs/m{number}", number / 2) for number in range(num_models))
    lines = str(Report(models)).splitlines()
    assert max(map(len, lines)) <= 80
    values = [value for line in lines if "my.txt" in line for value in line.split()[1:]]
    assert values == [f"{number / 2:.3f}" for number in range(num_models)]


def test_long_names_become_letters() -> None:
    lines = str(Report((figures("/runs/" + "a" * 50), figures("/runs/b")))).splitlines()
    assert lines[:2] == [f"A = {'a' * 50}", "B = b"]
    assert lines[3].split() == ["A", "B"]


def test_models_of_one_name_show_more_of_their_paths() -> None:
    assert Report((figures("/a/mine/model"), figures("/b/mine"), figures("/b/other"))).names == [
        *("a/mine", "b/mine", "other")
    ]


def test_markdown_has_every_row() -> None:
    report = Report((figures("/runs/mine"), figures("/runs/o|ther")))
    lines = report.to_markdown().splitlines()
    assert lines[:2] == ["|  | mine | o\\|ther |", "|---|---:|---:|"]
    assert "| my.txt | 1.250 | 1.250 |" in lines
    assert "| **samples: 5 texts of each model** |  |  |" in lines
    assert len(lines) == 2 + len(report.rows()) + len({row.section for row in report.rows()} - {""})


def test_json_has_every_figure() -> None:
    (model,) = json.loads(json.dumps(Report((figures("/runs/mine"),)).to_dict(), allow_nan=False))["models"]
    assert model["texts"]["my.txt"]["bits_per_byte"] == 1.25
    assert model["texts"]["my.txt"]["perplexity"] is None
    assert model["tasks"]["storybook pairs"][0]["accuracy"] == 0.91
    assert model["samples"]["copies"]["longest_text"] == "the longest span"
    assert model["samples"]["distinct"]["2"] == 0.6
