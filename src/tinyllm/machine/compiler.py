"""torch.compile: whether this machine can run it, and how tinyllm calls it."""

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def has_cpp_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler: $CXX, or the platform's default."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")) is not None


def compiled(function: Function) -> Function:
    """`function` through torch.compile, for fixed shapes; compilation happens at the first call."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler itself uses deprecated parts of PyTorch
        return cast(Function, torch.compile(function, dynamic=False))
