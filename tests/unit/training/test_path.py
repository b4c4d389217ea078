"""The choice of `auto`: by measurement, by the length of the run, and by the presence of a compiler."""

from pathlib import Path

import pytest
import torch

from tinyllm import config as sections
from tinyllm.errors import UsageError
from tinyllm.kernels.train import library
from tinyllm.training import path as path_module
from tinyllm.training.path import choose_fast_path, load_train_kernels, restore_path
from training_runs import Listener, losses, make_config, train

CPU = torch.device("cpu")


def make(**training: object) -> sections.Config:
    model = {"vocab_size": 64, "hidden_size": 16, "num_layers": 4, "num_heads": 2, "context_length": 16}
    return sections.Config.model_validate({"model": model, "training": {"sequence_length": 16, **training}})


def pretend_speeds(monkeypatch: pytest.MonkeyPatch, seconds: dict[tuple[str, str], float]) -> list[tuple[str, str]]:
    """Replaces measurements by `seconds`; returns the list of measured candidates. Disables the custom kernels."""
    pretend_kernels(monkeypatch, supported=False)
    asked: list[tuple[str, str]] = []

    def measure(config: sections.Config, _device: object, *, shortened: bool) -> float:
        assert shortened
        candidate = (config.training.dtype, config.training.attention)
        asked.append(candidate)
        return seconds[candidate]

    monkeypatch.setattr(path_module, "measure_update_seconds", measure)
    return asked


SPEEDS = {
    ("float32", "fused"): 1.0,
    ("float32", "explicit"): 0.8,
    ("bfloat16", "fused"): 0.6,
    ("bfloat16", "explicit"): 0.4,
}


def test_the_fastest_is_chosen_and_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_speeds(monkeypatch, SPEEDS)
    monkeypatch.setattr(path_module, "has_cpp_compiler", lambda: True)
    path = choose_fast_path(make(), CPU, num_updates=10_000)
    assert (path.dtype, path.attention, path.compiled) == ("bfloat16", "explicit", True)
    assert "3.4 x the speed of float32 with PyTorch's attention" in path.reason
    assert "saves about 28.0 of 66.7 minutes" in path.reason
    settings = path.resolve(make()).training
    assert (settings.dtype, settings.attention, settings.compile) == ("bfloat16", "explicit", "on")


def test_bfloat16_must_be_clearly_faster_than_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_speeds(monkeypatch, SPEEDS | {("bfloat16", "explicit"): 0.75, ("bfloat16", "fused"): 2.0})
    path = choose_fast_path(make(), CPU, num_updates=1)
    assert (path.dtype, path.attention) == ("float32", "explicit")


def test_compiling_helps_explicit_attention_more(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_speeds(monkeypatch, SPEEDS | {("bfloat16", "fused"): 0.35})
    monkeypatch.setattr(path_module, "has_cpp_compiler", lambda: True)
    attentions = [choose_fast_path(make(compile=setting), CPU, 10_000).attention for setting in ("off", "on")]
    assert attentions == ["fused", "explicit"]


def test_explicit_settings_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pretend_speeds(monkeypatch, SPEEDS)
    path = choose_fast_path(make(dtype="float32", attention="fused", compile="off"), CPU, num_updates=10_000)
    assert (path.dtype, path.attention, path.compiled, asked) == ("float32", "fused", False, [])
    path = choose_fast_path(make(dtype="float32"), CPU, num_updates=10)
    assert (path.dtype, path.attention) == ("float32", "explicit")
    assert asked == [("float32", "fused"), ("float32", "explicit")]


@pytest.mark.parametrize(("num_updates", "compiled"), [(20, False), (10_000, True)])
def test_only_a_long_run_is_compiled(monkeypatch: pytest.MonkeyPatch, num_updates: int, compiled: bool) -> None:
    pretend_speeds(monkeypatch, SPEEDS)
    monkeypatch.setattr(path_module, "has_cpp_compiler", lambda: True)
    assert choose_fast_path(make(), CPU, num_updates).compiled == compiled


def test_a_run_without_a_compiler_continues_with_a_note(
    monkeypatch: pytest.MonkeyPatch, tiny_shards: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    listener = Listener()
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 2, training={"compile": "on"}), listener=listener)
    assert sum("there is no C++ compiler" in note for note in listener.notes) == 1
    assert len(losses(tmp_path / "run")) == 2


def test_a_failing_compiler_is_reported_and_the_run_continues(
    monkeypatch: pytest.MonkeyPatch, tiny_shards: Path, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CppCompileError: C++ compile error\nPython.h: No such file")

    monkeypatch.setattr("tinyllm.machine.compiler.compiled", lambda function: broken)
    monkeypatch.setattr("tinyllm.model.transformer.compiled", lambda function: function)
    monkeypatch.setattr(path_module, "has_cpp_compiler", lambda: True)
    listener = Listener()
    config = make_config(tiny_shards, 2, training={"compile": "on"})
    _, trainer = train(tiny_shards, tmp_path / "run", config, listener=listener)
    expected = "torch.compile failed, so training goes on without it: RuntimeError: CppCompileError: C++ compile error"
    assert listener.notes.count(expected) == 1
    assert len(losses(tmp_path / "run")) == 2
    assert trainer.config.training.compile == "off"


TILED = ("bfloat16", "tiled")


def pretend_kernels(monkeypatch: pytest.MonkeyPatch, *, supported: bool = True, problem: str = "") -> None:
    monkeypatch.setattr(library, "is_supported", lambda: supported)
    monkeypatch.setattr(library, "load", lambda folder, note: problem if supported else "not here")


def test_tiled_attention_is_one_of_the_measured_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    float16 = {("float16", "fused"): 2.0, ("float16", "explicit"): 1.0}
    asked = pretend_speeds(monkeypatch, SPEEDS | float16 | {TILED: 0.1})
    pretend_kernels(monkeypatch)
    path = choose_fast_path(make(), CPU, 10_000)
    assert (path.dtype, path.attention, path.compiled) == (*TILED, False)
    assert path.reason.endswith("not compiled: the kernels are compiled code already")
    assert not choose_fast_path(make(attention="tiled", compile="on"), CPU, 10).compiled
    assert ("float32", "tiled") not in asked
    asked.clear()
    assert choose_fast_path(make(compile="off", dtype="float16"), CPU, 10).attention == "explicit"
    pretend_kernels(monkeypatch, supported=False)
    assert choose_fast_path(make(compile="off"), CPU, 10).attention == "explicit"
    assert not [attention for _, attention in asked if attention == "tiled"]


def test_kernels_are_loaded_only_for_runs_that_can_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    pretend_kernels(monkeypatch)
    assert load_train_kernels(make(), CPU, notes.append)
    assert load_train_kernels(make(attention="tiled"), CPU, notes.append)
    assert not load_train_kernels(make(attention="fused"), CPU, notes.append)
    assert not load_train_kernels(make(dtype="float32"), CPU, notes.append)
    assert not load_train_kernels(make(compile="on"), CPU, notes.append), "compile on excludes the kernels"
    for dtype in ("float32", "float16"):
        with pytest.raises(UsageError, match="needs a CPU, bfloat16, and a model without dropout; choose another"):
            choose_fast_path(make(dtype=dtype, attention="tiled", compile="off"), CPU, 1)
    pretend_kernels(monkeypatch, supported=False)
    assert not load_train_kernels(make(), CPU, notes.append)
    assert notes == [], "a machine without AMX gets no note"
    pretend_kernels(monkeypatch, problem="it broke")
    assert not load_train_kernels(make(), CPU, notes.append)
    assert notes == ["training goes on without the kernels for this processor: it broke"]
    with pytest.raises(UsageError, match="it broke; choose another with `training.attention=explicit`"):
        load_train_kernels(make(attention="tiled"), CPU, notes.append)


def test_a_model_with_biases_trains_without_the_kernels_and_a_line_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    pretend_kernels(monkeypatch)
    for field in ("attention_bias", "mlp_bias"):
        biased = make()
        biased = biased.model_copy(update={"model": biased.model.model_copy(update={field: True})})
        assert not load_train_kernels(biased, CPU, notes.append)
        reason = f"tiled attention has no biases, and model.{field} is true"
        assert notes.pop() == f"training goes on without the kernels for this processor: {reason}"
        required = {"training": biased.training.model_copy(update={"attention": "tiled"})}
        with pytest.raises(UsageError, match=reason):
            load_train_kernels(biased.model_copy(update=required), CPU, notes.append)
    pretend_kernels(monkeypatch, supported=False)
    assert not load_train_kernels(biased, CPU, notes.append)
    assert not notes


def test_a_run_with_tiled_attention_resumes_on_a_machine_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = {"dtype": "bfloat16", "attention": "tiled", "compile": "off"}
    pretend_kernels(monkeypatch)
    assert restore_path(make(), saved, CPU).training.attention == "tiled"
    assert restore_path(make(), saved, torch.device("cuda")).training.attention == "auto"
    pretend_kernels(monkeypatch, supported=False)
    assert restore_path(make(), saved, CPU).training.attention == "auto"
    assert restore_path(make(), saved, CPU).training.compile == "auto", "compile was off only because of the tiles"
    assert restore_path(make(), saved, CPU).training.dtype == "bfloat16"


@pytest.mark.skipif(not library.is_supported(), reason="needs an x86 processor with AMX and a C++ compiler")
def test_tiled_attention_learns_like_float32(tiny_shards: Path, tmp_path: Path) -> None:
    found = {}
    for way in ({"dtype": "bfloat16", "attention": "tiled"}, {"dtype": "float32", "attention": "fused"}):
        run = tmp_path / way["attention"]
        train(tiny_shards, run, make_config(tiny_shards, 12, training=way))
        found[way["attention"]] = losses(run)
    assert found["tiled"][12] == pytest.approx(found["fused"][12], rel=0.01)
    assert found["tiled"][12] < 0.95 * found["tiled"][1]
