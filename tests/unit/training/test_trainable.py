"""Training a part of the parameters: frozen ones stay as they are and leave no trace in optimizer files."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tinyllm.config import Config
from tinyllm.errors import MismatchError, UsageError
from tinyllm.kernels.train import kernel_pass
from tinyllm.model.transformer import Transformer
from tinyllm.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from tinyllm.training.inputs import compare_inputs, describe_inputs
from tinyllm.training.loss import IGNORED, NextTokenLoss, count_targets, sum_losses
from tinyllm.training.optimizer import set_learning_rate
from tinyllm.training.step import TrainingAttention, Updater, build_updater, kernels_refusal
from tinyllm.training.trainable import frozen_names, train_only
from unit.kernels.train import plain_operators

CPU = torch.device("cpu")
MODEL = {"vocab_size": 32, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "context_length": 8}


def in_last_layer(name: str) -> bool:
    return "layers.1." in name


def make(
    dtype: str = "float32", optimizer: str = "adamw", trains: Callable[[str], bool] | None = in_last_layer
) -> tuple[Transformer, Updater]:
    settings = {"dtype": dtype, "attention": "fused", "compile": "off", "sequence_length": 8}
    config = Config.model_validate({"model": MODEL, "training": settings, "optimizer": {"name": optimizer}})
    torch.manual_seed(1)
    model = Transformer(config.model)
    updater = build_updater(model, config, CPU, trains=trains)
    set_learning_rate(updater.optimizers, 1e-2)
    return model, updater


def some_tokens() -> Tensor:
    torch.manual_seed(2)
    return torch.randint(32, (2, 9))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_frozen_parameters_stay_and_get_no_gradient(dtype: str, optimizer: str) -> None:
    model, updater = make(dtype, optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    updater.backward(some_tokens(), 16)
    for part in (model, updater.shadow):
        assert all(p.grad is None for name, p in part.named_parameters() if not in_last_layer(name))
    for _ in range(3):
        assert not updater.update([some_tokens()], 16).skipped
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (not in_last_layer(name)), name
    assert frozen_names(model) == [name for name in before if not in_last_layer(name)]
    for weight, shadow in zip(model.parameters(), updater.shadow.parameters(), strict=True):
        assert torch.equal(weight.to(shadow.dtype), shadow)


def test_the_part_that_trains_gets_the_gradient_of_the_whole_model() -> None:
    (model, updater), (whole, all_of_it) = make(), make(trains=None)
    updater.backward(some_tokens(), 16)
    all_of_it.backward(some_tokens(), 16)
    for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_checkpoint_has_moments_of_the_trained_part_and_resumes(optimizer: str, tmp_path: Path) -> None:
    model, updater = make("bfloat16", optimizer)
    updater.update([some_tokens()], 16)
    path = save_checkpoint(tmp_path, TrainingState(step=1), model, updater, keep=1)
    moments = load_file(path / "optimizer.safetensors")
    assert moments
    assert all(in_last_layer(name) for name in moments)
    assert load_file(path / "model.safetensors").keys() == {name for name, _ in model.named_parameters()}

    again, restored = make("bfloat16", optimizer)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    load_checkpoint(path, again, restored)
    for one in (updater, restored):
        one.update([some_tokens()], 16)
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(restored.shadow.parameters(), updater.shadow.parameters(), strict=True):
        assert torch.equal(ours, theirs)

    other, all_of_it = make("bfloat16", optimizer, trains=None)
    with pytest.raises(MismatchError, match="the optimizer state belongs to another model or optimizer"):
        load_checkpoint(path, other, all_of_it)


def test_a_run_does_not_resume_with_another_part() -> None:
    model, _ = make()
    config = Config.model_validate({"model": MODEL, "training": {"sequence_length": 8}})
    part, whole = describe_inputs(config, {}, frozen_names(model)), describe_inputs(config, {})
    assert "frozen" not in whole, "a checkpoint without frozen parameters is the same as before they could be"
    with pytest.raises(MismatchError, match="was made with frozen"):
        compare_inputs(part, whole, Path("step-00000001"))


def test_a_model_without_a_part_that_trains_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter would train"):
        make(trains=lambda name: False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_parameter_without_a_gradient_is_refused_by_name_and_nothing_changes(dtype: str) -> None:
    model, updater = make_with_unused(dtype, trains=lambda name: True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(
        UsageError, match="^unused would train, but the next-token loss gives no gradient for it; leave"
    ):
        updater.update([some_tokens(), some_tokens()], 32)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any(optimizer.state for optimizer in updater.optimizers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_without_the_unused_parameter_trains_and_resumes(dtype: str, tmp_path: Path) -> None:
    model, updater = make_with_unused(dtype, trains=lambda name: name != "unused")
    updater.update([some_tokens()], 16)
    path = save_checkpoint(tmp_path, TrainingState(step=1), model, updater, keep=1)
    again, restored = make_with_unused(dtype, trains=lambda name: name != "unused")
    load_checkpoint(path, again, restored)
    for one in (updater, restored):
        one.update([some_tokens()], 16)
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def make_with_unused(dtype: str, trains: Callable[[str], bool]) -> tuple[Transformer, Updater]:
    """A model with a parameter that no pass uses, and its updater."""
    settings = {"dtype": dtype, "attention": "fused", "compile": "off", "sequence_length": 8}
    config = Config.model_validate({"model": MODEL, "training": settings})
    torch.manual_seed(1)
    model = Transformer(config.model)
    model.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
    updater = build_updater(model, config, CPU, trains=trains)
    set_learning_rate(updater.optimizers, 1e-2)
    return model, updater


class PartlyUsed:
    """A loss that uses `extra` only for batches that begin with an even token."""

    name = "loss with an extra parameter"

    def compile(self, enabled: bool) -> None:
        pass

    def loss(self, model: Transformer, batch: Tensor) -> Tensor:
        loss = sum_losses(model.hidden_states(batch[:, :-1]), model.output_weight, batch[:, 1:])
        return loss if batch[0, 0] % 2 else loss + 48 * model.get_parameter("extra").float().sum()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("first_tokens", [(0, 1), (1, 0), (0, 1, 0)])
def test_a_parameter_that_some_microbatches_use_gets_the_sum_of_their_gradients(
    first_tokens: tuple[int, ...], dtype: str
) -> None:
    torch.manual_seed(1)
    model = Transformer(Config.model_validate({"model": MODEL, "training": {"sequence_length": 8}}).model)
    extra = torch.nn.Parameter(torch.zeros(2))
    model.register_parameter("extra", extra)
    descent = torch.optim.SGD(model.parameters(), lr=1.0)
    updater = Updater(model, [descent], dtype=dtype, grad_clip=0.0, device=CPU, loss=PartlyUsed())
    parts = []
    for token in first_tokens:
        tokens = some_tokens()
        tokens[0, 0] = token
        parts.append(tokens)
    for update in (1, 2):
        updater.update(parts, 16)
        assert extra.tolist() == [-3.0 * update * first_tokens.count(0)] * 2


class Masked(NamedTuple):
    """A batch with targets that do not count."""

    tokens: Tensor
    targets: Tensor


class MaskedLoss:
    """A loss of another objective than the next token."""

    name = "loss of answers"

    def compile(self, enabled: bool) -> None:
        pass

    def loss(self, model: Transformer, batch: Masked) -> Tensor:
        return sum_losses(model.hidden_states(batch.tokens[:, :-1]), model.output_weight, batch.targets)


class MaskedNextToken(NextTokenLoss):
    """The next-token loss of another batch, in which some targets do not count."""

    def inputs_and_targets(self, batch: Masked) -> tuple[Tensor, Tensor]:
        return batch.tokens[:, :-1], batch.targets


def masked_batches() -> list[Masked]:
    batches = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        tokens = torch.randint(32, (2, 9))
        targets = tokens[:, 1:].clone()
        targets[torch.rand(2, 8) < 0.6] = IGNORED
        batches.append(Masked(tokens, targets))
    return batches


def test_the_updater_takes_any_loss_and_means_over_the_targets_that_count() -> None:
    torch.manual_seed(1)
    config = Config.model_validate({"model": MODEL, "training": {"sequence_length": 8}})
    model = Transformer(config.model)
    reference = copy.deepcopy(model)
    descent = torch.optim.SGD(model.parameters(), lr=1.0)
    updater = Updater(model, [descent], dtype="float32", grad_clip=0.0, device=CPU, loss=MaskedLoss())
    parts = masked_batches()
    result = updater.update(parts, sum(count_targets(part.targets) for part in parts))

    tokens, targets = (torch.cat(pair) for pair in zip(*parts, strict=True))
    loss = F.cross_entropy(reference(tokens[:, :-1]).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    loss.backward()  # type: ignore[no-untyped-call]
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(ours, theirs - theirs.grad, rtol=1e-4, atol=1e-6)


def test_the_kernels_train_on_ignored_targets_as_autograd_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """On plain PyTorch in place of the compiled operators, so that every machine tests it."""
    monkeypatch.setattr(kernel_pass, "operators", plain_operators)
    config = Config.model_validate({"model": MODEL, "training": {"sequence_length": 8}})
    ways: list[TrainingAttention] = ["tiled", "fused"]
    models, results, evaluations = [], [], []
    for attention in ways:
        torch.manual_seed(1)
        model = Transformer(config.model)
        descent = torch.optim.SGD(model.parameters(), lr=1.0)
        updater = Updater(
            model, [descent], dtype="float32", grad_clip=0.0, device=CPU, attention=attention, loss=MaskedNextToken()
        )
        parts = masked_batches()
        results.append(updater.update(parts, sum(count_targets(part.targets) for part in parts)))
        evaluations.append(updater.summed_loss(parts[0]).item())
        models.append(model)
    (tiled, fused), (first, second) = results, models
    assert tiled.loss == pytest.approx(fused.loss, rel=1e-5)
    assert tiled.grad_norm == pytest.approx(fused.grad_norm, rel=1e-4)
    assert evaluations[0] == pytest.approx(evaluations[1], rel=1e-4)
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_kernels_refuse_by_name_what_they_do_not_support() -> None:
    model, _ = make(trains=None)
    settings = {"dtype": "bfloat16", "attention": "tiled", "sequence_length": 8}
    config = Config.model_validate({"model": MODEL, "training": settings})
    assert kernels_refusal(model, MaskedLoss()) != ""
    with pytest.raises(UsageError, match="next-token loss of a language model, not the loss of answers; choose"):
        build_updater(model, config, CPU, MaskedLoss())
    train_only(model, in_last_layer)
    with pytest.raises(UsageError, match=r"trains every parameter, and model.embed_tokens.weight is frozen; choose"):
        build_updater(model, config, CPU)
