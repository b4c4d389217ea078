"""The Llama decoder (Touvron et al. 2023): embedding, pre-norm blocks, final norm, output projection.

Parameters have the names of Hugging Face's `LlamaForCausalLM`, so a state dict needs no translation.
The loss is in `training/loss.py`.

Shapes: B batch, T time, D model size, V vocabulary.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from tinyllm.config import ModelConfig
from tinyllm.machine.compiler import compiled
from tinyllm.model.attention import Attention, AttentionKind
from tinyllm.model.feed_forward import FeedForward
from tinyllm.model.init import initialize
from tinyllm.model.kv_cache import KVCache
from tinyllm.model.norm import RMSNorm
from tinyllm.model.rope import RotaryTables


class Block(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None = None) -> Tensor:
        """The residual stream (B, T, D) after this layer, given the stream `x` (B, T, D) before it."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), cos, sin, cache))
        stream: Tensor = x + self.dropout(self.mlp(self.post_attention_layernorm(x)))
        return stream


def run_block(block: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The output of one block without a cache. One compilation serves all layers: only their weights differ."""
    stream: Tensor = block(x, cos, sin)
    return stream


class Decoder(nn.Module):
    """The model without its output projection; Hugging Face's `LlamaModel`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.context_length = config.context_length
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.rotary = RotaryTables(config)
        self.dropout = nn.Dropout(config.dropout)
        self.compiled_block: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor] | None = None

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Normalized hidden states (B, T, D) of `tokens` (B, T) int64. Raises ValueError past the context length."""
        cos, sin = self._rotary_after(cache, tokens.shape[1])
        x = self.dropout(self.embed_tokens(tokens))
        for block in self.layers:
            if self.compiled_block is not None and self.training and cache is None:
                x = self.compiled_block(block, x, cos, sin)
            else:
                x = block(x, cos, sin, cache)
        if cache is not None:
            cache.advance(tokens.shape[1])
        normed: Tensor = self.norm(x)
        return normed

    def layer_states(self, tokens: Tensor) -> list[Tensor]:
        """The L + 1 hidden states (B, T, D) of Hugging Face's `output_hidden_states`: the embedding, then each layer's.

        The last one is normalized. Raises ValueError past the context length.
        """
        cos, sin = self._rotary_after(None, tokens.shape[1])
        states = [self.dropout(self.embed_tokens(tokens))]
        for block in self.layers:
            states.append(block(states[-1], cos, sin, None))
        return [*states[:-1], self.norm(states[-1])]

    def use_attention(self, kind: AttentionKind) -> None:
        """Sets the attention implementation of every layer; results are equal, speed differs."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.kind = kind

    def compile_blocks(self, enabled: bool = True) -> None:
        """Enables or disables torch.compile for the blocks in training; compilation happens at the first step.

        Evaluation and generation stay eager: their shapes vary, and each new shape would compile again.
        """
        self.compiled_block = compiled(run_block) if enabled else None

    def rotary_of(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (end - start, C/2) of positions `start` to `end`. Raises ValueError past the context."""
        if end > self.context_length:
            raise ValueError(
                f"{end} tokens are more than the context of {self.context_length}; cut them, or slide the window"
            )
        tables: tuple[Tensor, Tensor] = self.rotary(start, end)
        return tables

    def _rotary_after(self, cache: KVCache | None, num_tokens: int) -> tuple[Tensor, Tensor]:
        """The tables of the next tokens: (T, C/2), or (B, 1, T, C/2) if the rows of `cache` differ in length."""
        start = 0 if cache is None else max(cache.lengths)
        tables = self.rotary_of(start, start + num_tokens)
        if cache is None or not cache.is_ragged:
            return tables
        cos, sin = self.rotary_of(0, start + num_tokens)
        positions = cache.positions(num_tokens)[:, None]
        return cos[positions], sin[positions]


class Transformer(nn.Module):
    """The language model, with fresh weights from torch's global generator; Hugging Face's `LlamaForCausalLM`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = None if config.tie_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        initialize(self, config.num_layers)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the next token after each of `tokens` (B, T) int64, which follow the cached positions.

        Raises ValueError if cached positions and `tokens` together exceed the context.
        """
        return self.project(self.hidden_states(tokens, cache))

    def hidden_states(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Hidden states (B, T, D) after the last norm, before the output projection."""
        hidden: Tensor = self.model(tokens, cache)
        return hidden

    def project(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., D)."""
        return F.linear(hidden, self.output_weight)

    @property
    def output_weight(self) -> Tensor:
        """The weight (V, D) of the output projection; tied models use the embedding."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
