"""The public functions, for programs that do not use the command line.

Each function builds a config and calls a stage. They print nothing. `tinyllm train` is `run_training` with a display.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.config.layers import build_run_config, to_toml

if TYPE_CHECKING:
    from tinyllm.config import Config
    from tinyllm.shards.format import ShardSet
    from tinyllm.training.outcome import Outcome
    from tinyllm.training.reporter import TrainingReporter


def generate(prompt: str = "", *, model: str | Path | None = None, **settings: Any) -> str:
    """`prompt` and its continuation by `model`, by default the bundled one; `settings` are fields of `SamplingConfig`.

    For several texts or streams, load the model once with `tinyllm.load(path)`. Raises the errors of `load` and
    `Generator.generate`.
    """
    from tinyllm.loading import load

    (result,) = load(model).generate(prompt, **settings)
    return result.prompt + result.text


def train(
    data: str | Path,
    out: str | Path,
    *,
    recipe: str | None = None,
    resume: bool = False,
    reporter: "TrainingReporter | None" = None,
    **sections: dict[str, Any],
) -> "Outcome":
    """Trains on the shards `data` into the run directory `out`; `sections` override the recipe's settings.

    >>> tinyllm.train("shards", "runs/mine", recipe="storybook", schedule={"num_steps": 500})  # doctest: +SKIP

    Does all that `tinyllm train` does: the same checks, files and samples. With `resume` the run in `out` continues
    from its newest checkpoint, with the settings of its own config.toml. Any other run starts from `recipe`, by default
    "seed"; `training={"init_from": "a model"}` gives its shape and weights. `reporter` receives steps, evaluations and
    notes, by those methods of a `TrainingReporter` that it has. Outside the main thread, signals do not save the run.

    Raises ConfigError, MismatchError or UsageError before the first step for invalid settings, Interrupted after
    saving for a signal, DivergenceError if losses or gradients stay non-finite.
    """
    from tinyllm.loading import read_shape
    from tinyllm.shards.format import ShardSet
    from tinyllm.training.reporter import TrainingReporter, as_training_reporter

    reporter = TrainingReporter() if reporter is None else as_training_reporter(reporter)
    shards = ShardSet.open(data)
    vocab_size = shards.tokenizer.vocab_size
    config, resume = build_run_config(
        vocab_size,
        Path(out),
        [("sections", sections)],
        recipe=recipe,
        resume=resume,
        note=reporter.note,
        shape_of=read_shape,
    )
    return run_training(config, shards, Path(out), resume=resume, reporter=reporter)


def run_training(
    config: "Config", shards: "ShardSet", out: Path, *, resume: bool, reporter: "TrainingReporter"
) -> "Outcome":
    """Trains by `config` into the run directory `out`, with samples at each evaluation; errors as `train`.

    The command line, the demo and the scripts call this function too, so that every run has the same checks and files.
    """
    from tinyllm.generation.training_samples import sample_texts
    from tinyllm.loading import open_model
    from tinyllm.model.size import num_parameters
    from tinyllm.training.builder import build_trainer

    trainer = build_trainer(
        config, shards, out, reporter=reporter, sampler=sample_texts, read_source=lambda path: open_model(path)
    )
    reporter.note(f"{num_parameters(config.model):,} parameters, {shards.train_counts.tokens:,} training tokens")
    reporter.note(f"logs and model go to {trainer.run}")
    return trainer.train(resume=resume, to_toml=to_toml)
