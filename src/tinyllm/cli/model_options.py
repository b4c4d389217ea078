"""The flags of the commands that load models to generate: device, precision, and the tokenizer of a model file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tinyllm.cli.console import note
from tinyllm.generation.generator import Generator
from tinyllm.loading import load


@Parameter(name="*")
@dataclass(frozen=True)
class EngineOptions:
    """Device and precision of a model."""

    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], Parameter(help="Precision of the weights.")] = "float32"
    weights: Annotated[
        Literal["auto", "fp32", "bf16", "int8"],
        Parameter(help="Precision of the weights on a CPU: fp32 (auto) is exact, int8 is fastest."),
    ] = "auto"

    def load(self, model: str | Path | None) -> Generator:
        """The generator of `model`, None for the bundled one. Raises the errors of `tinyllm.load`."""
        return load(model, device=self.device, dtype=self.dtype, weights=self.weights, note=note)


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions(EngineOptions):
    """Device and precision of a model, and the tokenizer of one that has none."""

    tokenizer: Annotated[
        Path | None, Parameter(help="For a model file with no tokenizer inside or beside it: .model or tokenizer.bin.")
    ] = None

    def load(self, model: str | Path | None) -> Generator:
        """The generator of `model`, None for the bundled one. Raises the errors of `tinyllm.load`."""
        return load(
            model, tokenizer=self.tokenizer, device=self.device, dtype=self.dtype, weights=self.weights, note=note
        )
