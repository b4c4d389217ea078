"""The loss with ignored targets, against PyTorch's cross entropy and against a batch without them."""

import torch
import torch.nn.functional as F

from tinyllm.config import ModelConfig
from tinyllm.model.transformer import Transformer
from tinyllm.training.loss import IGNORED, NextTokenLoss, count_targets, sum_losses

CONFIG = ModelConfig(vocab_size=32, hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, context_length=8)


def test_ignored_targets_have_no_loss_and_no_gradient() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(3, 5, 16, requires_grad=True), torch.randn(32, 16, requires_grad=True)
    targets = torch.randint(32, (3, 5))
    targets[0, 1:4] = targets[2, 4] = IGNORED
    assert count_targets(targets) == 11
    sum_losses(hidden, weight, targets).backward()  # type: ignore[no-untyped-call]

    same, same_weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    logits = F.linear(same, same_weight).flatten(0, 1)
    expected = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="mean") * 11
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(sum_losses(hidden, weight, targets), expected)
    assert hidden.grad is not None
    assert same.grad is not None
    torch.testing.assert_close(hidden.grad, same.grad)
    torch.testing.assert_close(weight.grad, same_weight.grad)
    assert not hidden.grad[targets == IGNORED].any()


def test_targets_that_are_all_ignored_have_loss_0() -> None:
    targets = torch.full((2, 3), IGNORED)
    assert sum_losses(torch.randn(2, 3, 16), torch.randn(32, 16), targets) == 0
    assert count_targets(targets) == 0


def test_the_next_token_loss_is_cross_entropy_of_the_logits() -> None:
    torch.manual_seed(1)
    model, tokens = Transformer(CONFIG), torch.randint(32, (2, 9))
    logits = model(tokens[:, :-1])
    expected = sum(F.cross_entropy(logits[row], tokens[row, 1:], reduction="sum") for row in range(2))
    for mode in (True, False):
        torch.testing.assert_close(NextTokenLoss().loss(model.train(mode), tokens), expected)
