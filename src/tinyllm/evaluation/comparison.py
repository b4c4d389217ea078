"""Evaluates several models on the same texts, tasks and samples; `report` shows the results side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tinyllm import text_input
from tinyllm.addresses import shown
from tinyllm.config import ModelConfig, SamplingConfig
from tinyllm.errors import InputError
from tinyllm.evaluation.likelihood import Scorer
from tinyllm.evaluation.minimal_pairs import storybook_pairs
from tinyllm.evaluation.perplexity import TextFigures, measure_texts, read_validation_texts
from tinyllm.evaluation.samples import SampleMeasures, measure_samples
from tinyllm.evaluation.scores import GroupScore, score_tasks
from tinyllm.evaluation.tasks import Task, read_tasks
from tinyllm.generation.generator import Generator
from tinyllm.loading import load
from tinyllm.model.size import num_parameters
from tinyllm.progress import SILENT, Reporter
from tinyllm.shards.format import ShardSet

BUILT_IN = "storybook pairs"
"""Name of the built-in tasks in reports."""


@dataclass(frozen=True)
class Material:
    """Texts and tasks that every model gets."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    """Name in reports -> documents that are scored together."""
    tasks: dict[str, list[Task]] = field(default_factory=dict)
    """Name in reports -> tasks."""
    shards: ShardSet | None = None
    """Training text that samples are compared with."""


@dataclass(frozen=True)
class Sampling:
    """The number of texts that a model writes, and the settings of their sampling."""

    num_samples: int
    """0 for none."""
    prompt: str
    config: SamplingConfig


@dataclass(frozen=True)
class ModelFigures:
    """The results of one model."""

    path: Path
    config: ModelConfig
    tokenizer_fingerprint: str
    texts: dict[str, TextFigures]
    tasks: dict[str, list[GroupScore]]
    samples: SampleMeasures | None

    @property
    def num_parameters(self) -> int:
        """Parameters of the model."""
        return num_parameters(self.config)


def read_material(
    data: Path | None, texts: Sequence[Path], tasks: Sequence[Path], *, with_pairs: bool, max_bytes: int | None
) -> Material:
    """Reads everything before the first model is loaded; raises the errors of the readers.

    Two files of one name keep their whole paths as names. `max_bytes` limits the validation text of shards.
    """
    shards = None if data is None else ShardSet.open(data)
    documents = {f"{shown(data)} (validation)": read_validation_texts(shards, max_bytes)} if data and shards else {}
    for path in texts:
        text = text_input.read_file(path)
        if not text.strip():
            raise InputError(f"{path} has no text to score; name another file")
        documents[_name(path, texts)] = [text]
    named: dict[str, list[Task]] = {BUILT_IN: list(storybook_pairs())} if with_pairs else {}
    return Material(documents, named | {_name(path, tasks): read_tasks(path) for path in tasks}, shards)


def evaluate_model(
    path: Path,
    material: Material,
    sampling: Sampling,
    *,
    tokenizer: Path | None = None,
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> ModelFigures:
    """The results of the model at `path`; raises the errors of `tinyllm.load`.

    `tokenizer` is for a model file; a directory has its own.
    """
    tokenizer = tokenizer if path.is_file() else None
    name = model_name(path)
    generator = load(path, tokenizer=tokenizer, device=device, note=reporter.note)
    texts, tasks = {}, {}
    for label, documents in material.texts.items():
        texts[label] = measure_texts(Scorer(generator, reporter, f"{name}: {label}"), documents)
    for label, each in material.tasks.items():
        tasks[label] = score_tasks(Scorer(generator, reporter, f"{name}: {label}"), each)
    samples = None
    if sampling.num_samples:
        reporter.note(f"{name}: writing {sampling.num_samples} {'sample' if sampling.num_samples == 1 else 'samples'}")
        samples = measure_samples(write_samples(generator, sampling), material.shards)
    return ModelFigures(path, generator.config, generator.tokenizer.fingerprint, texts, tasks, samples)


def write_samples(generator: Generator, sampling: Sampling) -> list[str]:
    """The texts that the model writes, each with the prompt, up to its end or the end of the context."""
    limit = min(sampling.config.max_new_tokens, generator.config.context_length - 1)
    config = sampling.config.model_copy(update={"max_new_tokens": limit})
    results = generator.generate(sampling.prompt, num_samples=sampling.num_samples, sampling=config)
    return [result.prompt + result.text for result in results]


def model_name(path: Path, num_parts: int = 1) -> str:
    """The last parts of a model's path, without the `model` at the end of RUN/model."""
    parts = path.resolve().parts
    parts = parts[:-1] if parts[-1] == "model" and len(parts) > 2 else parts
    return "/".join(parts[-num_parts:])


def _name(path: Path, others: Sequence[Path]) -> str:
    return path.name if sum(other.name == path.name for other in others) == 1 else str(path)
