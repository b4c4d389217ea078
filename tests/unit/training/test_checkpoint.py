"""Checkpoints: pruning of old ones, damaged ones, and weights that are not finite."""

from pathlib import Path

import pytest
import torch

from tinyllm.errors import ArtifactError, MismatchError
from tinyllm.training.checkpoint import list_checkpoints, newest_whole_checkpoint, read_state, save_checkpoint
from tinyllm.training.inputs import compare_inputs, describe_inputs
from training_runs import make_config, train


def names(run: Path) -> list[str]:
    return [path.name for path in list_checkpoints(run / "checkpoints")]


def test_the_newest_are_kept_including_the_last_step(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 10, training={"keep_checkpoints": 2}))
    assert names(tmp_path / "run") == ["step-00000010", "step-00000009"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_skipped_and_named(tiny_shards: Path, tmp_path: Path, name: str) -> None:
    train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 6))
    folder = tmp_path / "run" / "checkpoints"
    path = folder / "step-00000006" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    newest, complaints = newest_whole_checkpoint(folder)
    assert newest == folder / "step-00000003"
    assert list(complaints) == [folder / "step-00000006"]
    assert complaints[folder / "step-00000006"].startswith("step-00000006 is passed over: ")


def test_a_draft_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "step-00000004.tmp").mkdir()
    assert newest_whole_checkpoint(tmp_path) == (None, {})


def test_a_weight_that_is_not_finite_is_never_saved(tiny_shards: Path, tmp_path: Path) -> None:
    _, trainer = train(tiny_shards, tmp_path / "run", make_config(tiny_shards, 3))
    before = names(tmp_path / "run")
    with torch.no_grad():
        next(trainer.model.parameters())[0, 0] = torch.nan
    with pytest.raises(ArtifactError, match="embed_tokens.weight holds a number that is not finite"):
        save_checkpoint(tmp_path / "run" / "checkpoints", trainer.state, trainer.model, trainer.updater, keep=1)
    assert names(tmp_path / "run") == before


def test_a_state_of_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"step": "many"}')
    with pytest.raises(ArtifactError, match=r"state\.json cannot be read"):
        read_state(tmp_path)


def test_a_checkpoint_with_an_old_name_of_a_setting_resumes_without_a_note(tiny_shards: Path, tmp_path: Path) -> None:
    current = describe_inputs(make_config(tiny_shards), {})
    saved = current | {"evaluation": {"eval_interval": 4, "eval_iters": 2}}
    assert compare_inputs(saved, current, tmp_path) == []
    saved["evaluation"]["eval_iters"] = 3
    (note,) = compare_inputs(saved, current, tmp_path)
    assert note.startswith("changed since the checkpoint: training.eval_batches 3, this run has 2; losses")


def test_a_checkpoint_without_the_newer_fields_of_the_model_resumes(tiny_shards: Path, tmp_path: Path) -> None:
    current = describe_inputs(make_config(tiny_shards), {})
    newer = ("head_size", "rope_scaling", "rope_factor", "rope_original_context", "attention_bias", "mlp_bias")
    saved = current | {"model": {name: value for name, value in current["model"].items() if name not in newer}}
    assert compare_inputs(saved, current, tmp_path) == []
    with pytest.raises(MismatchError, match=r"model.attention_bias False, this run has True"):
        compare_inputs(saved, current | {"model": current["model"] | {"attention_bias": True}}, tmp_path)
