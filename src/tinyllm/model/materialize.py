"""Builds a module from stored weights, without spending time and memory on initial ones."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def materialize(
    build: Callable[[], Module],
    tensors: Mapping[str, NDArray[np.float32]],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Module:
    """The module of `build()` in evaluation mode on `device`; its parameters are `tensors` in `dtype` (None = float32).

    `build` runs on PyTorch's meta device, which has shapes and no numbers. `tensors` needs every parameter's name.
    """
    with torch.device("meta"):
        module = build()
    module = module.to(dtype or torch.float32).to_empty(device=device).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(as_tensor(tensors[name]))
    return module


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """`array` as a tensor that shares its memory; a copy of an array that must not be changed."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
