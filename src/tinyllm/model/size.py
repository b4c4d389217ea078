"""How large and how costly a model is: pure arithmetic on its config, without building it and without torch.

FLOPs count a multiplication and an addition as two, matrix products alone, and attention over the whole context
without the causal half, as PaLM (Chowdhery et al. 2022, appendix B) and nanoGPT count them.
"""

from math import prod

from tinyllm.config import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"
TRAINING_FACTOR = 3  # the backward pass makes two products for each one of the forward pass


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of each stored parameter, in the order of the data's way; tied embeddings are stored once."""
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
    keys = config.num_kv_heads * config.head_size
    return {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, hidden),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }


def num_parameters(config: ModelConfig) -> int:
    """Stored numbers; tied embeddings count once. Fast for any number of layers: no list of them is made."""
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_embeddings else 2)
    return embeddings + config.num_layers * sum(map(prod, _layer_shapes(config).values())) + config.hidden_size


def weight_bytes(config: ModelConfig, bytes_per_parameter: int = 4) -> int:
    """Size of the weights in memory: 4 bytes a parameter in float32, 2 in bfloat16."""
    return num_parameters(config) * bytes_per_parameter


def cache_bytes(config: ModelConfig, bytes_per_value: int = 4) -> int:
    """Size of the key/value cache of one row over the whole context."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_size * config.context_length * bytes_per_value


def forward_flops_per_token(config: ModelConfig) -> int:
    """FLOPs of one token in a forward pass over a full context."""
    shapes = parameter_shapes(config)
    matrices = sum(prod(shape) for name, shape in shapes.items() if len(shape) == 2 and name not in (EMBEDDING, OUTPUT))
    output = config.vocab_size * config.hidden_size
    attention = 2 * config.num_layers * config.hidden_size * config.context_length  # scores, and their mix of values
    return 2 * (matrices + output + attention)


def training_flops_per_token(config: ModelConfig) -> int:
    """FLOPs of one token in a forward and backward pass."""
    return TRAINING_FACTOR * forward_flops_per_token(config)
