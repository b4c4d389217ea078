"""A trace against transformers: its attention weights, hidden states, and the logit lens computed from them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from tinyllm.loading import load_with_torch

TEXT = "Once upon a time the fox saw a red ball. Once upon"


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("tie_embeddings", [True, False])
@torch.inference_mode()
def test_every_number_is_theirs(make_model_dir: Callable[..., Path], num_kv_heads: int, tie_embeddings: bool) -> None:
    path = make_model_dir(num_kv_heads=num_kv_heads, tie_embeddings=tie_embeddings, num_layers=3)
    trace = load_with_torch(path, device="cpu").trace(TEXT, num_likeliest=5)
    theirs = transformers.LlamaForCausalLM.from_pretrained(path, attn_implementation="eager")
    theirs.train(False)
    streams: list[torch.Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: streams.append(inputs[0]))
        for module in (*theirs.model.layers, theirs.model.norm)
    ]
    found = theirs(torch.tensor([trace.token_ids]), output_attentions=True, output_hidden_states=True)
    for hook in hooks:
        hook.remove()

    num_tokens = len(trace.token_ids)
    assert trace.attention.shape == (3, 4, num_tokens, num_tokens)
    expected = torch.cat(found.attentions).numpy()
    np.testing.assert_allclose(trace.attention, expected, rtol=0, atol=1e-5)
    assert trace.attention.std() > 0.05  # the comparison is of heads that prefer something

    torch.testing.assert_close(streams[0], found.hidden_states[0])
    norms = torch.cat(streams).norm(dim=-1)
    np.testing.assert_allclose(trace.norms, norms.numpy(), rtol=1e-5, atol=1e-5)

    lens = torch.stack([theirs.lm_head(theirs.model.norm(stream))[0].softmax(-1) for stream in streams])
    top = lens.topk(5)
    np.testing.assert_array_equal(trace.lens_ids, top.indices.numpy())
    np.testing.assert_allclose(trace.lens_probabilities, top.values.numpy(), rtol=0, atol=1e-5)

    nats = found.logits[0].log_softmax(-1)
    following = [float(nats[place, id]) for place, id in enumerate(trace.token_ids[1:])]
    assert trace.log_probabilities[0] is None
    np.testing.assert_allclose(trace.log_probabilities[1:], following, rtol=0, atol=1e-5)  # type: ignore[arg-type]
