"""Builds the CPU engine of a model: packs its weights, and loads or compiles the program."""

from collections.abc import Mapping

from tinyllm.config import ModelConfig, WeightsKind
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.kernels.decode.cache import load_decode_kernels
from tinyllm.kernels.decode.weights import Floats, PackedWeights
from tinyllm.machine.user_cache import cache_folder
from tinyllm.progress import Note


def build_cpu_engine(config: ModelConfig, tensors: Mapping[str, Floats], kind: WeightsKind, note: Note) -> CpuEngine:
    """The engine of a model with `tensors` (Hugging Face's names) as weights of `kind`.

    `note` gets a line before a compilation. Raises UsageError if Numba is configured not to compile.
    """
    weights = PackedWeights(config, tensors, kind)
    kernels = load_decode_kernels(kind, cache_folder() / "kernels", note)  # last: compiling may take long
    return CpuEngine(config, weights, kernels)
