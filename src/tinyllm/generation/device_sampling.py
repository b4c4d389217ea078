"""Sampling on the device of the logits: the rules of `sampling` for all rows at once, without a word to the host.

`sampling` is the definition, and tests compare the two. Every operation has a fixed shape and no result that the host
waits for, so a CUDA graph can hold it. Sums of floats may round differently from NumPy's: a uniform number within about
1e-7 of the border between two tokens can choose the other one.

Shapes: B rows, V vocabulary.
"""

import math

import torch
from torch import Tensor

from tinyllm.config import SamplingConfig
from tinyllm.generation.sampling import LOWEST_TEMPERATURE


class Rules:
    """The settings of one choice, with what they need on a device."""

    def __init__(self, config: SamplingConfig, vocab_size: int, device: torch.device) -> None:
        self.config = config
        self.uses_seen = config.repetition_penalty != 1
        """Whether the choice depends on the tokens that occurred."""
        self.uses_counts = bool(config.frequency_penalty or config.presence_penalty)
        """Whether the choice depends on how often tokens were generated."""
        self._biases: Tensor | None = None
        if config.logit_bias:
            biases = torch.zeros(vocab_size)
            for token, bias in config.logit_bias:
                biases[token] += bias
            self._biases = biases.to(device)

    def choose(
        self, logits: Tensor, seen: Tensor | None, counts: Tensor | None, uniforms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The next token (B,) int64 of each row of `logits` (B, V) float32, and its log-probability (B,) float64.

        `seen` (B, V) bool marks tokens that occurred; `counts` (B, V) is how often each was generated. Either is None
        if the rules do not use it. `uniforms` (B,) float64 has one number in [0, 1) a row.
        """
        adjusted = self._adjust(logits, seen, counts)
        is_greedy = self.config.temperature == 0
        tokens = adjusted.argmax(-1) if is_greedy else pick(self._weights(adjusted), uniforms)
        return tokens, log_probability(logits, tokens)

    def _adjust(self, logits: Tensor, seen: Tensor | None, counts: Tensor | None) -> Tensor:
        """`logits` (B, V) after bias, repetition, frequency and presence penalty."""
        config = self.config
        if self._biases is not None:
            logits = logits + self._biases
        if seen is not None:
            limits = torch.finfo(torch.float32)
            penalty = config.repetition_penalty
            penalized = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = penalized.where(seen, logits).clamp(limits.min, limits.max)
        if counts is not None:
            lowered = config.frequency_penalty * counts.double() + config.presence_penalty
            logits = logits - lowered.float().where(counts > 0, 0.0)
        return logits

    def _weights(self, logits: Tensor) -> Tensor:
        """The weights (B, V) after top-k, temperature, top-p and min-p."""
        config = self.config
        temperature = max(config.temperature, LOWEST_TEMPERATURE)
        weights = ((logits - logits.amax(-1, keepdim=True)) / temperature).exp()
        if 0 < config.top_k < logits.shape[1]:
            smallest_kept = logits.topk(config.top_k, dim=-1).values[:, -1:]
            weights = weights.where(logits >= smallest_kept, 0.0)
        if config.top_p < 1:
            weights = weights.where(top_p(weights, config.top_p), 0.0)
        if config.min_p > 0:
            weights = weights.where(weights >= config.min_p * weights.amax(-1, keepdim=True), 0.0)
        return weights


def top_p(weights: Tensor, p: float) -> Tensor:
    """Marks in each row of `weights` (B, V) the smallest set with at least the share `p` of the row's sum.

    The lower ids win ties at the smallest weight of the set.
    """
    ranked = weights.sort(dim=-1, descending=True).values
    mass = ranked.double().cumsum(-1)
    last = torch.searchsorted(mass, p * mass[:, -1:]).clamp(max=weights.shape[1] - 1)
    smallest = ranked.gather(1, last)
    larger, ties = weights > smallest, weights == smallest
    num_ties = last + 1 - larger.sum(-1, keepdim=True)
    return larger | (ties & (ties.cumsum(-1) <= num_ties))


def pick(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The first token (B,) at which the running sum of a row of `weights` (B, V) exceeds `uniforms` times its sum."""
    sums = weights.double().cumsum(-1)
    total = sums[:, -1:]
    below = torch.nextafter(total, torch.full_like(total, -math.inf))
    target = torch.minimum(uniforms[:, None] * total, below)
    return torch.searchsorted(sums, target, right=True)[:, 0]


def log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """Natural logarithm of the probability (B,) float64 that `logits` (B, V) give to `tokens` (B,)."""
    top = logits.amax(-1, keepdim=True)
    normalizer = (logits - top).exp().sum(-1).double().log()
    chosen = logits.gather(1, tokens[:, None])
    return (chosen - top)[:, 0].double() - normalizer
