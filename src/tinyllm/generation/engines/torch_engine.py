"""The PyTorch engine, for every device: prefill in one pass, then one token a step with the key/value cache.

Shapes: B rows of a batch, T time, V vocabulary.
"""

from typing import TYPE_CHECKING

import torch

from tinyllm.config import SamplingConfig
from tinyllm.generation import sampling
from tinyllm.generation.engines.protocol import Doubles, Logits, Mask, Tokens
from tinyllm.machine.memory import available_memory_bytes
from tinyllm.model.kv_cache import KVCache
from tinyllm.model.size import cache_bytes

if TYPE_CHECKING:
    from tinyllm.model.transformer import Transformer


class TorchEngine:
    """Runs a model on the device and in the dtype of its weights; returns logits as float32."""

    def __init__(self, model: "Transformer") -> None:
        self._model = model.eval()
        self._cache: KVCache | None = None

    @property
    def context_length(self) -> int:
        """Largest number of tokens that a row of the cache can hold."""
        return self._model.config.context_length

    @property
    def length(self) -> int:
        """Number of tokens in each row of the cache."""
        return 0 if self._cache is None else self._cache.length

    @property
    def description(self) -> str:
        """The engine's name, device and precision, for the user."""
        weight = self._model.output_weight
        return f"PyTorch engine on {weight.device}, {str(weight.dtype).removeprefix('torch.')}"

    def release_cache(self) -> KVCache | None:
        """Moves the cache out of the engine and returns it; the engine is then empty."""
        cache, self._cache = self._cache, None
        return cache

    def restore_cache(self, cache: object) -> None:
        """Puts back a cache that `release_cache` returned, in place of the current one."""
        assert cache is None or isinstance(cache, KVCache)
        self._cache = cache

    def missing_bytes(self, num_texts: int, num_positions: int) -> int:  # noqa: ARG002 (the cache always spans the context)
        """Bytes to allocate beyond those held, for `num_texts` texts; the cache always spans the whole context."""
        config, weight = self._model.config, self._model.output_weight
        held = 0 if self._cache is None else self._cache.keys.nbytes + self._cache.values.nbytes
        logits = config.vocab_size * (weight.itemsize + 8)  # in the model's dtype, as float32, and a copy
        return max(0, num_texts * (cache_bytes(config, weight.itemsize) + logits) - held)

    def available_bytes(self) -> int | None:
        """Bytes of memory left on the model's device; None if unknown."""
        device = self._model.output_weight.device
        if device.type == "cuda":
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return torch.cuda.mem_get_info(device)[0] + unused
        return available_memory_bytes() if device.type == "cpu" else None

    def prefill(self, tokens: Tokens) -> Logits:
        """Empties the cache and reads `tokens` (B, T); returns next-token logits (B, V)."""
        cache = self._empty_cache(len(tokens))
        if (tokens == tokens[:1]).all():
            # The samples of one prompt: it is read once, and the cache copies it to every row.
            return self._read(tokens[:1], cache).repeat(len(tokens), axis=0)
        return self._read(tokens, cache)

    def decode(self, tokens: Tokens) -> Logits:
        """Reads one more token of each row (B,); returns next-token logits (B, V)."""
        assert self._cache is not None, "prefill comes before decode"
        return self._read(tokens[:, None], self._cache)

    def choose(self, logits: Logits, seen: Mask, uniforms: Doubles, config: SamplingConfig) -> tuple[Tokens, Doubles]:
        """The next token of each row of `logits` (B, V) and its log-probability, (B,) each."""
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
            self._cache = None  # free its memory before the new cache is allocated
            weight = self._model.output_weight
            self._cache = KVCache(self._model.config, batch_size, weight.device, weight.dtype)
        self._cache.reset()
        return self._cache
