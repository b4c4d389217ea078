"""The plan: one record that tells the compiled program the model's sizes and the addresses of its memory.

Numba reads the fields as `plan.num_layers`; Python writes them as `plan["num_layers"]`. This module does not import
Numba, so that a process whose kernels are cached never loads it.

Shapes: L layers, D hidden size, A channels of all query heads, I intermediate size, V vocabulary, S positions, N rows
of one pass, R texts that sample, Q channels of all query, key and value heads. A starred size is padded to whole blocks
(see `blocks`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

SIZES = (
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_size",
    "hidden_size",
    "hidden_columns",  # D*
    "attention_columns",  # A*
    "intermediate_size",
    "intermediate_columns",  # I*
    "vocab_size",
    "vocab_columns",  # V*
    "num_positions",  # S*
    "slot_keys",  # floats of the keys of one slot; its values follow them
    "num_chunks",  # parts into which a job is divided
)
"""Counts."""
ADDRESSES = (
    # The model.
    "weights",
    "matrices",  # records of `MATRIX`: the embedding, four of each layer, the output
    "scales",  # float32, one for each matrix row
    "biases",  # float32, one for each matrix row; 0 if the model has none
    "gains",  # float32 (2 L + 1, D)
    "cosines",  # float32 (S, head_size / 2)
    "sines",
    # Activations of one pass, float32.
    "residual",  # (N, D)
    "normed",  # (N, D*)
    "qkv",  # (N, Q)
    "attended",  # (N, A*)
    "gate_up",  # (N, 2 I)
    "gated",  # (N, I*)
    "logits",  # (outputs, V)
    "packed",  # (N, the largest of D*, A* and I*), float32, or int16 beside int8 weights
    "packed_scales",  # (N,)
    "scores",  # (chunks, rows of a tile, S*): scratch memory
    # Rows of one pass, int64 (N,); `output_rows` names the rows whose logits are computed.
    "tokens",
    "caches",  # the address of each row's slot: keys, then values, float32 (L, KV heads, S* / 32, head_size, 32) each
    "positions",
    "output_rows",
    # Sampling.
    "sampled_logits",  # float32 (R, V)
    "seen",  # bool (R, V)
    "uniforms",  # float64 (R,)
    "chosen",  # int64 (R,)
    "chosen_logits",  # float64 (R,), below the largest logit of the row
    "normalizers",  # float64 (R,)
    "weighed",  # float32 (chunks, V*): scratch memory
    # The team (see `team`).
    "queue",  # int64 (QUEUE_SIZE,)
    "yield_function",  # the system's function by which a thread lets others run, or 0
)
"""Addresses of memory and functions."""
COUNTS = ("num_rows", "num_outputs", "num_samples", "not_finite", "idle_rounds")
"""Set for each call: rows, logits and samples of it; whether a logit was not finite; rounds that a helper waits."""
SETTINGS = ("temperature", "top_p", "min_p", "repetition_penalty")
"""Settings of sampling, float64; `top_k` is an integer."""

PLAN = np.dtype(
    [(name, np.int64) for name in (*SIZES, *ADDRESSES, *COUNTS, "top_k")]
    + [(name, np.float64) for name in (*SETTINGS, "norm_eps")],
    align=True,
)
MATRIX = np.dtype([(name, np.int64) for name in ("start", "row", "num_rows", "columns")])
"""A matrix of the weights: the indices of its first number and of its first scale, its rows, its padded columns."""
Plan = npt.NDArray[Any]
"""A zero-dimensional array of `PLAN`."""


def new_plan() -> Plan:
    """A plan whose fields are all 0."""
    return np.zeros((), PLAN)


READ, HELP, SAMPLE = range(3)
"""Roles of a call: lead a pass through the model, help the leader, or lead the sampling."""

TICKET, DONE, OPEN_JOB, OPEN_LAYER, QUEUE_SIZE = 0, 8, 16, 17, 24
"""Places in the queue; those that several threads write are a cache line apart."""
