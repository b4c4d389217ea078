"""Scales rotary frequencies, so that a model reads texts longer than those it was first trained on.

    linear    f / s                          position interpolation (Chen et al. 2023)
    dynamic   f up to the context length     a larger base beyond it: "NTK-aware" scaling (bloc97 and emozilla, 2023)
    llama3    (1 - m) f / s + m f            m = clip((L f / 2 pi - low) / (high - low), 0, 1), of Meta's Llama 3.1

f is a frequency in radians a token, s is `rope_factor`, L is `rope_original_context`. The rules and their rounding are
those of transformers. A dynamic model reads no text beyond its context length here, so its frequencies are plain.

PyTorch tensors and NumPy arrays are scaled alike; this module imports neither.
"""

import math
from typing import TYPE_CHECKING, Any, TypeVar

from tinyllm.config import ModelConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Frequencies = TypeVar("Frequencies", "Tensor", "NDArray[np.float32]")


def scale_frequencies(frequencies: Frequencies, config: ModelConfig) -> Frequencies:
    """The rotary frequencies (C/2), float32, of `config`, given the plain ones."""
    if config.rope_scaling == "linear":
        return frequencies / config.rope_factor
    if config.rope_scaling != "llama3":
        return frequencies
    low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
    wavelengths: Any = 2 * math.pi / frequencies
    kept = ((config.rope_original_context / wavelengths - low) / (high - low)).clip(0, 1)
    scaled: Frequencies = (1 - kept) * frequencies / config.rope_factor + kept * frequencies
    return scaled
