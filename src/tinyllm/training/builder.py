"""Builds a language model's run: checks before it starts, the model with its first weights, objective and directory.

The function that draws samples comes from the caller: training does not import generation.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tinyllm import storage
from tinyllm.config import Config, TrainingSamplesConfig
from tinyllm.errors import MismatchError
from tinyllm.machine import ranks
from tinyllm.machine.device import pick_device, seed_everything
from tinyllm.machine.memory import shortages_named
from tinyllm.model.init import initialize_mimetic
from tinyllm.model.transformer import Transformer
from tinyllm.model_dir import load_model
from tinyllm.shards.format import ShardSet
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.training import sharding
from tinyllm.training.agreement import check_ranks_agree
from tinyllm.training.checkpoint import list_checkpoints
from tinyllm.training.initial_weights import Source, copy_weights
from tinyllm.training.inputs import fingerprint_shards
from tinyllm.training.loop import Trainer
from tinyllm.training.memory import check_memory
from tinyllm.training.next_token import NextToken
from tinyllm.training.reporter import TrainingReporter
from tinyllm.training.run_dir import check_run_directory
from tinyllm.training.saved_model import LanguageModelDirectory, check_loadable
from tinyllm.training.schedule import fit_warmup

Sampler = Callable[[Transformer, Tokenizer, TrainingSamplesConfig], list[str]]


def build_trainer(
    config: Config,
    shards: ShardSet,
    run: Path,
    *,
    reporter: TrainingReporter,
    sampler: Sampler | None = None,
    read_source: Source = load_model,
) -> Trainer:
    """The trainer of a language model on `shards` in the directory `run`; `sampler` draws its samples.

    `read_source` reads the model that `training.init_from` names; the default reads model directories. Raises
    MismatchError, ArtifactError or UsageError for shards or a directory that cannot be used. Raises ResourceError for a
    model that cannot fit, and InputError for shards without a window. Raises MismatchError if ranks differ in settings.
    """
    check_ranks_agree(config, fingerprint_shards(shards))
    run = _check_start(config, shards, run)
    config = sharding.settle(_with_fitting_warmup(config, reporter))
    settings = config.training
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    device = pick_device(settings.device)
    check_memory(config, device)
    check_loadable(config.model)
    objective = NextToken(config, shards, device)
    model = build_model(
        config, device, shards.tokenizer, resumes=bool(list_checkpoints(run / "checkpoints")), read_source=read_source
    )
    return Trainer(
        config,
        model,
        objective,
        LanguageModelDirectory(run / "model", model, shards.tokenizer, fingerprint_shards(shards)),
        run,
        device=device,
        reporter=reporter,
        draw_samples=_bind_sampler(sampler, shards.tokenizer, config.sample),
    )


def build_model(
    config: Config, device: torch.device, tokenizer: Tokenizer, *, resumes: bool, read_source: Source = load_model
) -> Transformer:
    """The model with its first weights, in training mode on `device`.

    A run that `resumes` gets its weights from a checkpoint, so the model that `training.init_from` names is not read.
    """
    settings = config.training
    seed_everything(settings.seed)
    with shortages_named():
        model = Transformer(config.model)
    if settings.initialization == "mimetic":
        initialize_mimetic(model, config.model.num_heads // config.model.num_kv_heads)
    if settings.init_from not in ("scratch", "resume") and not resumes:
        copy_weights(model, tokenizer, Path(settings.init_from).expanduser(), read_source)
    # Sharding moves the weights to the device block by block.
    return (model if sharding.shards(config) else model.to(device)).train()


def _check_start(config: Config, shards: ShardSet, run: Path) -> Path:
    """The directory of the run in `run`, links followed, after the checks that need no model.

    Raises MismatchError if the vocabularies differ, ArtifactError or UsageError if the directory cannot be used.
    """
    if config.model.vocab_size != shards.tokenizer.vocab_size:
        raise MismatchError(
            f"model.vocab_size is {config.model.vocab_size}, but the shards' tokenizer has "
            f"{shards.tokenizer.vocab_size} tokens; leave model.vocab_size out, or prepare the shards again"
        )
    run = storage.follow_link(run)
    # The other ranks would find the lock of the first.
    ranks.once(lambda: _check_directory(run))
    return run


def _check_directory(run: Path) -> None:
    storage.check_writable(run / "config.toml")
    storage.check_free(run)
    check_run_directory(run)


def _bind_sampler(
    sampler: Sampler | None, tokenizer: Tokenizer, config: TrainingSamplesConfig
) -> Callable[[nn.Module], list[str]] | None:
    """A function that draws the samples of a model at an evaluation; None if there are none to draw."""
    if sampler is None or not config.num_samples:
        return None

    def draw(model: nn.Module) -> list[str]:
        assert isinstance(model, Transformer)
        model.eval()
        try:
            return sampler(model, tokenizer, config)
        finally:
            model.train()

    return draw


def _with_fitting_warmup(config: Config, reporter: TrainingReporter) -> Config:
    """`config` with a warmup shorter than the run; reports a change."""
    schedule = fit_warmup(config.schedule)
    if schedule is config.schedule:
        return config
    reporter.note(
        f"schedule.warmup_steps {config.schedule.warmup_steps} would take all {schedule.num_steps} steps of the "
        f"run; the learning rate warms up over {schedule.warmup_steps} instead"
    )
    return config.model_copy(update={"schedule": schedule})
