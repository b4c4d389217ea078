"""The training loop: its outputs, its stops, and the runs that it refuses."""

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tinyllm import storage
from tinyllm.errors import ArtifactError, DivergenceError, InputError, MismatchError, ResourceError, UsageError
from tinyllm.model_dir import load_model
from tinyllm.shards.format import ShardSet
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.training.builder import build_trainer
from tinyllm.training.checkpoint import checkpoint_path
from tinyllm.training.next_token import NextToken
from training_runs import Listener, losses, make_config, train


def test_a_run_learns_and_leaves_all_its_files(tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome, trainer = train(tiny_shards, run, make_config(tiny_shards, 40))
    assert outcome.reason == "done"
    assert outcome.num_tokens == 40 * 2 * 2 * 16
    assert losses(run)[40] < 0.7 * losses(run)[1]
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        "checkpoints",
        "config.toml",
        "loss.svg",
        "metrics.jsonl",
        "model",
        "samples.jsonl",
    }
    evaluations = [r for r in storage.read_json_lines(run / "metrics.jsonl") if "validation_loss" in r]
    assert [r["step"] for r in evaluations] == list(range(0, 41, 4))
    assert math.isclose(min(r["validation_loss"] for r in evaluations), trainer.state.best_loss or 0)


def split_at_bos(ids: list[int], tokenizer: Tokenizer) -> list[list[int]]:
    """The ids before the first BOS, then the ids of each document."""
    parts: list[list[int]] = [[]]
    for id in ids:
        if id == tokenizer.bos_id:
            parts.append([])
        else:
            parts[-1].append(id)
    return parts


def test_bits_a_byte_is_the_loss_of_the_text_in_bits(tiny_shards: Path, tmp_path: Path) -> None:
    """Recomputes bits per byte from the saved model, token by token, with the bytes of the text."""
    run = tmp_path / "run"
    config = make_config(tiny_shards, 4, training={"eval_batches": 1, "batch_size": 1})
    outcome, trainer = train(tiny_shards, run, config)
    assert isinstance(trainer.objective, NextToken)
    tokens = torch.from_numpy(trainer.objective.validation[0])
    model, tokenizer = load_model(run / "model")
    with torch.no_grad():
        log_probabilities = model(tokens[:, :-1]).log_softmax(-1)
    targets = tokens[0, 1:].tolist()
    nats = -sum(log_probabilities[0, place, target].item() for place, target in enumerate(targets))
    # A window begins inside a document; later documents are decoded whole. The corpus is ASCII: 1 byte a character.
    first, *documents = split_at_bos(tokens[0].tolist(), tokenizer)
    assert documents
    num_bytes = sum(len(tokenizer.piece_bytes(id)) for id in first[1:]) + sum(
        len(tokenizer.decode(ids)) for ids in documents
    )
    assert outcome.evaluation is not None
    assert outcome.evaluation.loss == pytest.approx(nats / len(targets), rel=1e-5)
    assert outcome.evaluation.bits_per_byte == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)


def test_the_repr_of_an_outcome_is_one_line(tiny_shards: Path, tmp_path: Path) -> None:
    outcome, _ = train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 4))
    assert re.fullmatch(r"Outcome\('done', step=4, model=[^\n]+\)", repr(outcome))


def test_samples_are_written_at_each_evaluation(tiny_shards: Path, tmp_path: Path) -> None:
    config = make_config(tiny_shards, 8)
    trainer = build_trainer(
        config,
        ShardSet.open(tiny_shards),
        tmp_path / "run",
        reporter=Listener(),
        sampler=lambda model, tokenizer, sample: [f"{sample.prompt} in {model.config.num_layers} layers"],
    )
    trainer.train(resume=False, to_toml=lambda config: "")
    samples = storage.read_json_lines(tmp_path / "run" / "samples.jsonl")
    assert [s["step"] for s in samples] == [4, 8]
    assert samples[0]["text"] == "Once upon a time in 2 layers"


def test_a_second_run_in_the_directory_is_refused(tiny_shards: Path, tmp_path: Path) -> None:
    config = make_config(tiny_shards, 3)
    with storage.exclusive(tmp_path / "run"), pytest.raises(ArtifactError, match="in use by another run"):
        train(tiny_shards, tmp_path / "run", config)
    train(tiny_shards, tmp_path / "run", config)
    with pytest.raises(UsageError, match="already holds a run; go on with `resume=True`"):
        train(tiny_shards, tmp_path / "run", config)


def test_ten_bad_updates_in_a_row_stop_the_run_and_keep_the_checkpoint(tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    listener = Listener()
    trainer = build_trainer(make_config(tiny_shards, 40), ShardSet.open(tiny_shards), run, reporter=listener)

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        # One bad update, then only bad ones from the sixth on.
        return gradient * (math.nan if trainer.state.step == 2 or trainer.state.step >= 5 else 1)

    next(trainer.model.parameters()).register_hook(poison)  # type: ignore[no-untyped-call]
    with pytest.raises(DivergenceError, match=r"10 updates in a row were not finite, up to step 15; .*step-000000"):
        trainer.train(resume=False, to_toml=lambda config: "")
    assert trainer.state.total_bad_steps == 11
    assert losses(run)[3] is None
    assert losses(run)[4] is not None
    assert sum("not finite" in note for note in listener.notes) == 11
    assert all(torch.isfinite(p).all() for p in load_model(run / "model")[0].parameters())
    last = storage.read_manifest(sorted((run / "checkpoints").iterdir())[-1], "checkpoint")
    assert last.details["step"] <= 15


def test_the_time_limit_saves_and_stops(tiny_shards: Path, tmp_path: Path) -> None:
    outcome, _ = train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 50, training={"max_minutes": 1e-9}))
    assert (outcome.reason, outcome.state.step) == ("time", 1)
    listener = Listener()
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 50), resume=True, listener=listener)
    assert any("going on from" in note for note in listener.notes)
    assert len(losses(tmp_path / "run")) == 50


def test_eval_only_evaluates_and_trains_nothing(tiny_shards: Path, tmp_path: Path) -> None:
    config = make_config(tiny_shards, 5, training={"eval_only": True})
    outcome, _ = train(tiny_shards, tmp_path / "run", config)
    assert outcome.reason == "evaluated"
    assert outcome.evaluation is not None
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert losses(tmp_path / "run") == {}


def test_a_run_can_begin_from_a_model(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "first", make_config(tiny_shards, 20))
    config = make_config(tiny_shards, 20, training={"init_from": str(tmp_path / "first" / "model")})
    train(tiny_shards, tmp_path / "second", config)
    assert losses(tmp_path / "second")[1] < 0.8 * losses(tmp_path / "first")[1]


FIXED = {
    "num_layers": 1,
    "num_heads": 4,
    "num_kv_heads": 2,
    "intermediate_size": 8,
    "tie_embeddings": False,
    "norm_eps": 1e-3,
    "rope_theta": 500.0,
}


def test_a_run_begins_from_a_model_that_differs_in_fields_without_weights(tiny_shards: Path, tmp_path: Path) -> None:
    first = {"multiple_of": 4, "intermediate_size": 44}
    train(tiny_shards, tmp_path / "first", make_config(tiny_shards, 3, model=first))
    settings = {"init_from": str(tmp_path / "first" / "model"), "eval_only": True}
    model = first | {"dropout": 0.2, "multiple_of": 8, "context_length": 64}
    _, trainer = train(tiny_shards, tmp_path / "next", make_config(tiny_shards, 3, model=model, training=settings))
    saved, _ = load_model(tmp_path / "first" / "model")
    ours = trainer.model.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in saved.state_dict().items())


@pytest.mark.parametrize(("field", "value"), FIXED.items())
def test_differences_to_the_model_of_init_from_are_named(
    field: str, value: Any, tiny_shards: Path, tmp_path: Path, make_model_dir: Callable[..., Path]
) -> None:
    shape = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 64}
    source = make_model_dir(**shape)
    theirs = load_model(source)[0].config.model_dump()[field]
    config = make_config(tiny_shards, 3, model=shape | {field: value}, training={"init_from": str(source)})
    with pytest.raises(UsageError, match=re.escape(f"model.{field} is {theirs} there and {value} here")):
        train(tiny_shards, tmp_path / "run", config)
    both = make_config(
        tiny_shards, 3, model=shape | {"num_layers": 3, "rope_theta": 7.0}, training={"init_from": str(source)}
    )
    with pytest.raises(UsageError, match=r"model.num_layers is 2 there and 3 here; model.rope_theta is .* here; make"):
        train(tiny_shards, tmp_path / "run", both)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_does_not_need_the_model_it_began_from(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "first", make_config(tiny_shards, 3))
    settings = {"init_from": str(tmp_path / "first" / "model")}
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 3, training=settings))
    shutil.rmtree(tmp_path / "first")
    outcome, _ = train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 6, training=settings), resume=True)
    assert outcome.state.step == 6


@pytest.mark.parametrize(("num_steps", "warmup", "fitted"), [(30, 1000, 3), (30, 30, 3), (5, 9, 1), (2, 2, 1)])
def test_a_warmup_as_long_as_the_run_is_shortened_with_a_note(
    num_steps: int, warmup: int, fitted: int, tiny_shards: Path, tmp_path: Path
) -> None:
    listener = Listener()
    config = make_config(tiny_shards, num_steps, schedule={"warmup_steps": warmup})
    _, trainer = train(tiny_shards, tmp_path / "run", config, listener=listener)
    assert trainer.config.schedule.warmup_steps == fitted
    notes = [note for note in listener.notes if "warmup" in note]
    assert len(notes) == 1
    assert notes[0].startswith(f"schedule.warmup_steps {warmup} would take all {num_steps} steps of the run; ")
    rates = [record["learning_rate"] for record in listener.records if "learning_rate" in record]
    assert max(rates) == config.schedule.peak


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"num_layers": 1}}, "model.num_layers 2, this run has 1"),
        ({"training": {"batch_size": 3}}, "training.batch_size 2, this run has 3"),
        ({"training": {"seed": 5}}, "seed 1337, this run has 5"),
        ({"training": {"dtype": "bfloat16"}}, "dtype float32, this run has bfloat16"),
    ],
)
def test_a_run_with_changed_inputs_is_not_resumed(
    tiny_shards: Path, tmp_path: Path, change: dict[str, dict[str, Any]], message: str
) -> None:
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 3))
    with pytest.raises(MismatchError, match=message):
        train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 3, **change), resume=True)


def test_a_longer_schedule_is_resumed_with_a_note(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 3))
    listener = Listener()
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 5), resume=True, listener=listener)
    assert any("schedule.num_steps 3, this run has 5; the learning rate follows" in note for note in listener.notes)
    assert len(losses(tmp_path / "run")) == 5


def test_resume_falls_back_to_a_whole_checkpoint_with_a_note(tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_shards, run, make_config(tiny_shards, 6))
    expected = losses(run)
    (run / "checkpoints" / "step-00000006" / "model.safetensors").write_bytes(b"")
    listener = Listener()
    train(tiny_shards, run, make_config(tiny_shards, 6), resume=True, listener=listener)
    assert any("step-00000006 is passed over" in note for note in listener.notes)
    assert losses(run) == expected
    assert (run / "checkpoints" / "step-00000006.damaged").is_dir()
    for path in (run / "checkpoints").iterdir():
        (path / "state.json").write_text("{}")
    with pytest.raises(ArtifactError, match="no checkpoint in .* is whole"):
        train(tiny_shards, run, make_config(tiny_shards, 6), resume=True)


def test_a_corpus_shorter_than_a_window_is_refused(tiny_shards: Path, tmp_path: Path) -> None:
    config = make_config(tiny_shards, 3, model={"context_length": 100_000}, training={"sequence_length": 100_000})
    with pytest.raises(InputError, match="one window needs 100001"):
        train(tiny_shards, tmp_path / "run", config)


def test_tensorboard_receives_the_losses(tiny_shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 2, training={"tensorboard": True}))
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_samples_without_room_do_not_end_a_run(tiny_shards: Path, tmp_path: Path) -> None:
    def refuse(*_: object) -> list[str]:
        raise ResourceError("40.0 TB of memory are needed")

    listener = Listener()
    config = make_config(tiny_shards, 4)
    trainer = build_trainer(config, ShardSet.open(tiny_shards), tmp_path / "run", reporter=listener, sampler=refuse)
    outcome = trainer.train(resume=False, to_toml=lambda config: "")
    assert outcome.state.step == 4
    assert checkpoint_path(tmp_path / "run" / "checkpoints", 4).is_dir()
    assert any("lower sample.num_samples: 40.0 TB" in note for note in listener.notes)


def test_settings_are_there_before_anything_is_measured(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyllm.training.path.choose_fast_path", stop)
    trainer = build_trainer(
        make_config(tiny_shards, 4), ShardSet.open(tiny_shards), tmp_path / "run", reporter=Listener()
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.train(resume=False, to_toml=lambda config: "settings")
    assert (tmp_path / "run" / "config.toml").read_text() == "settings"
