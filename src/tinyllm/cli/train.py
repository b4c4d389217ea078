"""`tinyllm train`: builds the config, opens the shards, trains, and shows progress."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cyclopts import Parameter
from pydantic import BaseModel

from tinyllm import api, storage
from tinyllm.addresses import with_addresses
from tinyllm.cli.console import note
from tinyllm.cli.training_display import TrainingDisplay
from tinyllm.config import Config
from tinyllm.config.layers import build_run_config, file_layer
from tinyllm.loading import read_shape
from tinyllm.machine import launcher, ranks
from tinyllm.progress import SILENT
from tinyllm.shards.format import ShardSet
from tinyllm.text_input import read_argument
from tinyllm.training.remote_run import local_run, opened_run
from tinyllm.training.reporter import TrainingReporter

if TYPE_CHECKING:
    from tinyllm.training.outcome import Outcome

Settings = dict[str, str] | None


def section_parameter(name: str, topic: str) -> Parameter:
    """The flags `--NAME.KEY VALUE` of one section of the config. The help lists the section's settings."""
    section = cast(type[BaseModel], Config.model_fields[name].annotation)
    keys = section.model_fields
    return Parameter(name=f"--{name}", help=f"--{name}.KEY VALUE: {topic}. Keys: {', '.join(keys)}.")


def train(
    *,
    data: Annotated[Path, Parameter(help="Shards written by tinyllm prepare.")],
    out: Annotated[Path, Parameter(help="Run directory for config, metrics, checkpoints and model.")],
    recipe: Annotated[str | None, Parameter(help="Named settings: seed (default), storybook, stories15m ...")] = None,
    config: Annotated[Path | None, Parameter(help="TOML file with settings that override the recipe.")] = None,
    resume: Annotated[
        Literal["auto", "never"],
        Parameter(
            help="auto: continue from the newest whole checkpoint in --out, with the settings of its config.toml."
        ),
    ] = "never",
    steps: Annotated[int | None, Parameter(help="Optimizer updates; short for --schedule.num_steps.")] = None,
    dtype: Annotated[str | None, Parameter(help="auto (the fastest measured), float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    seed: Annotated[int | None, Parameter(help="Seed of weights, dropout and data order.")] = None,
    max_minutes: Annotated[float | None, Parameter(help="Save and stop after this wall time; 0 = no limit.")] = None,
    checkpoint_interval: Annotated[int | None, Parameter(help="Steps between checkpoints.")] = None,
    eval_only: Annotated[bool | None, Parameter(help="Evaluate once and stop.")] = None,
    verify: Annotated[
        Literal["changed", "full"],
        Parameter(help="Checksums of shards to verify: changed (new or modified files) or full (all files)."),
    ] = "changed",
    init_from: Annotated[
        str | None, Parameter(help="scratch, resume, or a model, which gives shape and weights.")
    ] = None,
    model: Annotated[Settings, section_parameter("model", "shape of the model")] = None,
    training: Annotated[Settings, section_parameter("training", "batches, evaluation, machine")] = None,
    schedule: Annotated[Settings, section_parameter("schedule", "learning rate")] = None,
    optimizer: Annotated[Settings, section_parameter("optimizer", "AdamW or Muon")] = None,
    sample: Annotated[Settings, section_parameter("sample", "samples in training")] = None,
) -> None:
    """Train a model on shards, or resume a run.

    Settings come from the recipe, then --config, then flags; RUN/config.toml holds the result.
    docs/settings.md describes each setting.
    Ctrl-C saves the current step; --resume auto continues from it, with the settings of RUN/config.toml.

    For example:

      tinyllm train --recipe seed --data shards --out runs/first
      tinyllm train --data shards --out runs/first --resume auto
      tinyllm train --data shards --out runs/tuned --init-from SmolLM-135M
      tinyllm train --data shards --out runs/wide --model.hidden_size 192
      tinyllm train --data shards --out runs/quick --schedule.peak 2e-3 --steps 500
      torchrun --nproc-per-node 4 -m tinyllm train --data shards --out runs/many
    """
    short: dict[str, dict[str, Any]] = {
        "schedule": {"num_steps": steps},
        "training": {
            "dtype": dtype,
            "device": device,
            "seed": seed,
            "max_minutes": max_minutes,
            "checkpoint_interval": checkpoint_interval,
            "eval_only": eval_only,
            "init_from": init_from,
        },
    }
    sample = {key: read_argument(value, f"--sample.{key}") for key, value in (sample or {}).items()}
    flags = {"model": model, "training": training, "schedule": schedule, "optimizer": optimizer, "sample": sample}
    with launcher.joined(), ExitStack() as stack:
        tell = note if ranks.is_first() else SILENT.note
        shards = ShardSet.open(data, verify=verify, note=tell)
        goes_on = resume == "auto" or launcher.is_restart_of(local_run(out))
        run = stack.enter_context(opened_run(out, resume=goes_on, note=tell))
        settings, goes_on = build_run_config(
            shards.tokenizer.vocab_size,
            run,
            [
                file_layer(config),
                ("flags", {name: values for name, values in flags.items() if values}),
                ("flags", {name: {k: v for k, v in values.items() if v is not None} for name, values in short.items()}),
            ],
            recipe=recipe,
            resume=goes_on,
            note=tell,
            shape_of=read_shape,
        )
        run_training(settings, shards, run, resume=goes_on)


def run_training(
    config: Config, shards: ShardSet, out: Path, *, resume: bool, display: TrainingDisplay | None = None
) -> "Outcome":
    """Trains, with a display on a terminal and plain lines elsewhere; returns the loop's `Outcome`.

    Only the first rank prints.
    """
    out = storage.follow_link(out)
    if not ranks.is_first():
        return api.run_training(config, shards, out, resume=resume, reporter=TrainingReporter())
    with display or TrainingDisplay(config) as display:
        outcome = api.run_training(config, shards, out, resume=resume, reporter=display)
    if outcome.reason == "time":
        note(f"time limit reached at step {outcome.state.step}; go on with --resume auto")
    print(with_addresses(describe_outcome(outcome, out)))
    return outcome


def describe_outcome(outcome: "Outcome", run: Path) -> str:
    """The last line of a run: step and loss of the saved model, or the reason why there is none."""
    if outcome.reason == "evaluated":
        assert outcome.evaluation is not None
        return f"step {outcome.state.step}: {outcome.evaluation}"
    if outcome.model is None:
        return f"step {outcome.state.step}: no model in {run / 'model'}, as no validation loss was finite"
    later = f"; no better one up to step {outcome.state.step}" if outcome.model.step < outcome.state.step else ""
    return f"{outcome.model}; model in {run / 'model'}, curve in {run / 'loss.svg'}{later}"
