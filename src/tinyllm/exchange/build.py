"""Builds a Transformer from a reader's arrays, and computes its logits on one fixed prompt."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinyllm.exchange.foreign import ForeignModel

if TYPE_CHECKING:
    import torch

    from tinyllm.model.transformer import Transformer

PROMPT_TOKENS = 32


def build_transformer(
    model: ForeignModel, device: "torch.device | str" = "cpu", dtype: "torch.dtype | None" = None
) -> "Transformer":
    """The model in evaluation mode on `device`, in `dtype` (None = float32)."""
    from tinyllm.model.materialize import materialize
    from tinyllm.model.transformer import Transformer

    return materialize(lambda: Transformer(model.config), model.tensors, device, dtype)


def logits_of_fixed_prompt(model: ForeignModel) -> NDArray[np.float32]:
    """Logits (T, V) on up to 32 tokens spread evenly over the vocabulary; equal models give equal logits."""
    import torch

    num_tokens = min(PROMPT_TOKENS, model.config.context_length)
    prompt = torch.linspace(0, model.config.vocab_size - 1, num_tokens).long()
    with torch.inference_mode():
        logits: NDArray[np.float32] = build_transformer(model)(prompt[None])[0].numpy()
    return logits
