"""The display of a run in a notebook, and the views of results, with a stand-in for IPython of the same interface."""

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tinyllm
from page_reader import HOSTILE, check
from tinyllm.generation.result import Generation
from tinyllm.loading import load_with_torch
from tinyllm.notebook import NotebookDisplay, in_notebook
from tinyllm.progress import Progress
from tinyllm.shards.format import ShardSet

SHAPE = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "context_length": 32}
ROWS = {"batch_size": 4, "accumulation_steps": 1, "sequence_length": 32, "eval_batches": 1, "eval_interval": 2}


class Html:
    """IPython.display.HTML."""

    def __init__(self, data: str) -> None:
        self.data = data


class Kernel:
    """The outputs of a cell: `display` of IPython with `display_id=True` gives a handle whose `update` replaces one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outputs: list[str] = []
        self.num_updates = 0
        shell = types.SimpleNamespace(kernel=object())
        ipython: Any = types.ModuleType("IPython")
        ipython.get_ipython = lambda: shell
        ipython.display = types.ModuleType("IPython.display")
        ipython.display.HTML, ipython.display.display = Html, self.display
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
        self.shell = shell

    def display(self, page: Html, *, display_id: bool) -> Any:
        assert display_id
        place = len(self.outputs)
        self.outputs.append(page.data)

        def update(page: Html) -> None:
            self.outputs[place] = page.data
            self.num_updates += 1

        return types.SimpleNamespace(update=update)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_a_kernel_is_a_notebook_and_a_terminal_is_none(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_notebook()
    del kernel.shell.kernel  # IPython in a terminal
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()
    assert "IPython" not in sys.modules


def test_training_shows_one_output_that_is_updated(kernel: Kernel, tiny_shards: Path, tmp_path: Path) -> None:
    outcome = tinyllm.train(tiny_shards, tmp_path / "run", model=SHAPE, training=ROWS, schedule={"num_steps": 4})
    (shown,) = kernel.outputs
    text = check_with_curve(shown)
    assert "training: 4 of 4 updates" in text
    assert "validation loss" in text
    assert "sample at step 4" in text
    assert "width:100.0%" in shown
    assert kernel.num_updates >= 3
    view = check_with_curve(outcome._repr_html_())
    assert f"{outcome.num_parameters:,}" in view
    assert "all steps are done" in view
    assert str(outcome.model) in view


def test_a_reporter_of_the_caller_replaces_the_display(kernel: Kernel, tiny_shards: Path, tmp_path: Path) -> None:
    tinyllm.train(
        tiny_shards,
        tmp_path / "run",
        model=SHAPE,
        training=ROWS,
        schedule={"num_steps": 1},
        reporter=types.SimpleNamespace(step=lambda record: None),  # type: ignore[arg-type]
    )
    assert kernel.outputs == []


def test_many_updates_are_shown_at_a_bounded_rate(kernel: Kernel) -> None:
    seconds = 0.0
    display = NotebookDisplay(clock=lambda: seconds)
    for step in range(1, 1001):
        seconds += 0.01
        display.advance(Progress("training", step, 1000, "updates"))
        display.step({"step": step, "loss": 3.0, "tokens_per_second": 1e4})
    assert 15 <= kernel.num_updates <= 25
    assert "1,000 of 1,000" in kernel.outputs[0]


def test_notes_and_samples_are_escaped(kernel: Kernel) -> None:
    display = NotebookDisplay()
    for text in HOSTILE:
        display.note(text)
        display.samples(1, "", [text])
        assert text in check(kernel.outputs[0]).text
    assert len(kernel.outputs) == 1


def test_a_text_is_shaded_by_token_and_its_pieces_are_the_text(make_model_dir: Callable[..., Path]) -> None:
    model = load_with_torch(make_model_dir(), device="cpu")
    for generation in model.generate("Once upon", num_samples=3, max_new_tokens=20, seed=3):
        assert "".join(generation.pieces) == generation.text
        assert len(generation.pieces) == len(generation.token_ids)
        shown = check(generation._repr_html_())
        assert "".join(shown.text.split()).startswith("".join((generation.prompt + generation.text).split()))
        assert sum("title" in attributes for _, attributes in shown.elements) > 2
    assert "20 tokens" in shown.text


def test_a_stop_string_is_cut_off_in_the_view_too(make_model_dir: Callable[..., Path]) -> None:
    model = load_with_torch(make_model_dir(), device="cpu")
    whole = model.generate("Once upon", max_new_tokens=20, temperature=0)[0].text
    cut = model.generate("Once upon", max_new_tokens=20, temperature=0, stop=whole[6:9])[0]
    assert cut.text == whole[: whole.index(whole[6:9])]
    assert cut._repr_html_().count("title=") <= len(cut.pieces)
    shown = check(cut._repr_html_()).text
    assert shown.startswith(f"Once upon{cut.text}probability")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_do_nothing(text: str) -> None:
    generation = Generation(text, text, [1, 2], [-0.1, -2.0], "length", False, 1.0, pieces=[text[:3], text[3:]])
    shown = check(generation._repr_html_())
    assert shown.text.startswith(text * 2)
    bare = check(replace(generation, log_probabilities=[])._repr_html_())
    assert bare.text.startswith(text * 2)
    assert not [name for _, attributes in bare.elements for name in attributes if name == "title"]


def test_models_and_shards_have_a_view(make_model_dir: Callable[..., Path], tiny_shards: Path) -> None:
    model = load_with_torch(make_model_dir(), device="cpu")
    shown = check(model._repr_html_()).text
    assert str(model.path) in shown
    assert "4, 2 for keys" in shown
    shards = ShardSet.open(tiny_shards)
    text = check(shards._repr_html_()).text
    assert f"{shards.train_counts.documents:,} documents" in text
    assert "length of documents in tokens" in text
    assert "Once upon a time" in text
    trace = model.trace("Once upon a time")
    assert check(trace._repr_html_()).text.startswith("<s> Once upon a time")


def check_with_curve(content: str) -> str:
    """The text of a page that ends with a loss curve, which has elements of its own."""
    before, _, rest = content.partition("<svg")
    curve, _, after = rest.partition("</svg>")
    assert "currentColor" in curve
    assert "<rect" in curve
    assert 'fill="#fff"' not in curve
    text: str = check(before + after).text
    return text
