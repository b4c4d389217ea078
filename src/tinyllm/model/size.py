"""Parameters, bytes and FLOPs of a model: arithmetic on its config, without building the model and without torch.

FLOPs are counted as in PaLM (Chowdhery et al. 2022, appendix B) and nanoGPT. A multiply-add counts as two. Only matrix
products count. Attention counts the whole context, without halving it for the causal mask.
"""

from math import prod

from tinyllm.config import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"
TRAINING_FACTOR = 3  # one product in the forward pass, two in the backward pass


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of each stored parameter, from input to output; tied embeddings are stored once."""
    layer = _layer_shapes(config)
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, config.hidden_size)}
    for index in range(config.num_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (config.hidden_size,)
    if not config.tie_embeddings:
        shapes[OUTPUT] = (config.vocab_size, config.hidden_size)
    return shapes


def _layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of each parameter of one transformer block."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.attention_size, config.num_kv_heads * config.head_size
    attention, mlp = config.attention_bias, config.mlp_bias
    return {
        "input_layernorm.weight": (hidden,),
        **_linear_shapes("self_attn.q_proj", (queries, hidden), attention),
        **_linear_shapes("self_attn.k_proj", (keys, hidden), attention),
        **_linear_shapes("self_attn.v_proj", (keys, hidden), attention),
        **_linear_shapes("self_attn.o_proj", (hidden, queries), attention),
        "post_attention_layernorm.weight": (hidden,),
        **_linear_shapes("mlp.gate_proj", (inner, hidden), mlp),
        **_linear_shapes("mlp.up_proj", (inner, hidden), mlp),
        **_linear_shapes("mlp.down_proj", (hidden, inner), mlp),
    }


def _linear_shapes(name: str, shape: tuple[int, int], bias: bool) -> dict[str, tuple[int, ...]]:
    """Name and shape of the parameters of one projection (outputs, inputs)."""
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


def num_parameters(config: ModelConfig) -> int:
    """Number of stored parameters; tied embeddings count once. Takes the same time for any number of layers."""
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_embeddings else 2)
    return embeddings + block_parameters(config) + config.hidden_size


def block_parameters(config: ModelConfig) -> int:
    """Number of parameters of all transformer blocks."""
    return config.num_layers * sum(map(prod, _layer_shapes(config).values()))


def weight_bytes(config: ModelConfig, bytes_per_parameter: int = 4) -> int:
    """Bytes of the weights in memory: 4 a parameter in float32, 2 in bfloat16."""
    return num_parameters(config) * bytes_per_parameter


def cache_bytes(config: ModelConfig, bytes_per_value: int = 4) -> int:
    """Bytes of the key/value cache of one row over the whole context."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_size * config.context_length * bytes_per_value


def trace_bytes(config: ModelConfig, num_tokens: int) -> int:
    """Bytes that a trace of `num_tokens` tokens needs at most beside the weights: attention, streams, and one lens."""
    attention = 3 * config.num_layers * config.num_heads * num_tokens**2
    streams = (config.num_layers + 1) * num_tokens * config.hidden_size
    return 4 * (attention + streams + 3 * num_tokens * config.vocab_size)


def forward_flops_per_token(config: ModelConfig) -> int:
    """FLOPs of one token in a forward pass over a full context."""
    shapes = parameter_shapes(config)
    matrices = sum(prod(shape) for name, shape in shapes.items() if len(shape) == 2 and name not in (EMBEDDING, OUTPUT))
    output = config.vocab_size * config.hidden_size
    attention = 2 * config.num_layers * config.attention_size * config.context_length  # Q K^T and P V
    return 2 * (matrices + output + attention)


def training_flops_per_token(config: ModelConfig) -> int:
    """FLOPs of one token in a forward and backward pass."""
    return TRAINING_FACTOR * forward_flops_per_token(config)
