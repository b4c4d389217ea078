"""The PyTorch engine: any device, prefill in one pass, then one token a step through the KV cache.

Shapes: B samples side by side, T time, V vocabulary.
"""

from typing import TYPE_CHECKING

import torch

from tinyllm.config import SamplingConfig
from tinyllm.generation import sampling
from tinyllm.generation.engine import Doubles, Logits, Mask, Tokens
from tinyllm.model.kv_cache import KVCache

if TYPE_CHECKING:
    from tinyllm.model.transformer import Transformer


class TorchEngine:
    """Runs a model where its weights are, in their dtype; logits come back as float32."""

    def __init__(self, model: "Transformer") -> None:
        self._model = model.eval()
        self._cache: KVCache | None = None

    @property
    def context_length(self) -> int:
        """Tokens that it can hold."""
        return self._model.config.context_length

    @property
    def length(self) -> int:
        """Tokens that it holds now, in each row."""
        return 0 if self._cache is None else self._cache.length

    @property
    def description(self) -> str:
        """What computes, in a few words."""
        weight = self._model.output_weight
        return f"PyTorch engine on {weight.device}, {str(weight.dtype).removeprefix('torch.')}"

    def prefill(self, tokens: Tokens) -> Logits:
        """Forgets everything, reads `tokens` (B, T); logits (B, V) of what comes next."""
        cache = self._empty_cache(len(tokens))
        if (tokens == tokens[:1]).all():
            # The samples of one prompt: read once, the cache gives it to every row.
            return self._read(tokens[:1], cache).repeat(len(tokens), axis=0)
        return self._read(tokens, cache)

    def decode(self, tokens: Tokens) -> Logits:
        """Reads one more token of each row (B,); logits (B, V) of what comes next."""
        assert self._cache is not None, "prefill comes before decode"
        return self._read(tokens[:, None], self._cache)

    def choose(self, logits: Logits, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> tuple[Tokens, Doubles]:
        """The next token of each row of `logits` (B, V), and its log-probability."""
        tokens = sampling.choose(logits, seen, uniforms, config)
        return tokens, sampling.log_probability(logits, tokens)

    @torch.inference_mode()
    def _read(self, tokens: Tokens, cache: KVCache) -> Logits:
        weight = self._model.output_weight
        hidden = self._model.hidden_states(torch.from_numpy(tokens).to(weight.device), cache)
        logits: Logits = self._model.project(hidden[:, -1]).float().cpu().numpy()
        return logits

    def _empty_cache(self, batch_size: int) -> KVCache:
        if self._cache is None or self._cache.batch_size != batch_size:
            weight = self._model.output_weight
            self._cache = KVCache(self._model.config, batch_size, weight.device, weight.dtype)
        self._cache.reset()
        return self._cache
