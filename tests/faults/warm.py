"""Makes torch import the modules of its first optimizer step; the server of trials imports this once.

It runs no backward pass: threads of autograd do not survive a fork.
"""

import sympy  # noqa: F401
import torch
import torch._dynamo

from faults import trials  # noqa: F401
from tinyllm.cli import shards, tokenizer, train  # noqa: F401
from tinyllm.training import loop  # noqa: F401

torch.set_num_threads(1)
_weight = torch.nn.Parameter(torch.ones(2, 2))
_weight.grad = torch.ones(2, 2)
torch.optim.AdamW([_weight], fused=True).step()
