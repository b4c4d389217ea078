"""`tinyllm doctor`: checks what tinyllm wrote; for shards, forecasts whether a run on them fits."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.filesize import decimal

from tinyllm import storage
from tinyllm.addresses import with_addresses
from tinyllm.cli.console import note
from tinyllm.cli.doctor_plan import PlanOptions, show_plan
from tinyllm.cli.flags import hint_in_flags
from tinyllm.config.layers import config_for_shards, file_layer
from tinyllm.errors import ArtifactError, UsageError
from tinyllm.machine.memory import available_memory_bytes
from tinyllm.model.size import num_parameters
from tinyllm.shards.format import ShardSet
from tinyllm.storage.remote.fetch import fetch

if TYPE_CHECKING:
    from tinyllm.config import Config
    from tinyllm.doctor.diagnosis import Finding


def doctor(
    path: Annotated[
        Path | None, Parameter(help="Run, shards, model, tokenizer, or a folder of them; default: this machine.")
    ] = None,
    /,
    *,
    recipe: Annotated[str, Parameter(help="For shards: recipe of the run to forecast.")] = "seed",
    config: Annotated[Path | None, Parameter(help="For shards: TOML file that overrides the recipe.")] = None,
    out: Annotated[
        Path, Parameter(help="For shards: directory of the run, to check the free space on its disk.")
    ] = Path(),
    trial_seconds: Annotated[float, Parameter(help="For shards: length of the trial; 0 for none.")] = 10.0,
    plan: Annotated[
        bool, Parameter(help="Print what a run of the recipe costs, and stop.", negative="", show_default=False)
    ] = False,
    options: PlanOptions = PlanOptions(),  # noqa: B008 (frozen)
) -> None:
    """Check runs, shards, models and tokenizers, or whether a run will fit.

    Checks subfolders too, and names the command that repairs or resumes. For shards it forecasts memory, disk and time
    of a run, by a short trial. Nothing is changed. The exit code is 1 if something is damaged or does not fit.

    With --plan it computes what a run of a recipe costs on one GPU or many: FLOPs, memory, bytes on the wire, days,
    money. Each number has its reason. Shards or a tokenizer give the size of the vocabulary.

    For example:

      tinyllm doctor
      tinyllm doctor runs/first
      tinyllm doctor demo
      tinyllm doctor shards --recipe stories15m
      tinyllm doctor --plan --recipe stories110m --gpus 8 --gpu h100 --price 2.5
    """
    options.check(plan=plan)
    if not 0 <= trial_seconds < math.inf:
        raise UsageError(f"--trial-seconds is {trial_seconds}; give 0 for no trial, or more")
    if plan:
        show_plan(path, recipe, config, options, trial_seconds)
        return
    if path is None:
        describe_machine(out)
        return
    from tinyllm.doctor.diagnosis import diagnose

    path = fetch(path, below=("model",), note=note)
    findings = diagnose(path)
    for finding in findings:
        show(finding)
    damaged = sum(not finding.is_whole for finding in findings)
    if damaged:
        raise ArtifactError(f"{path}: {damaged} finding(s) marked with !; the line with -> below each says what to do")
    if _is_shards(path):
        shards = ShardSet.open(path, verify="full")
        settings = config_for_shards(shards.tokenizer.vocab_size, [file_layer(config)], recipe=recipe, note=note)
        show_forecast(settings, shards, out, trial_seconds)


def describe_machine(out: Path) -> None:
    """Prints versions, device, memory, and the free disk space at `out`."""
    from tinyllm.doctor.machine import examine_machine

    found = examine_machine(out)
    print(f"  tinyllm {found.tinyllm}, Python {found.python}, PyTorch {found.pytorch}")
    print(f"  device: {found.device}, {found.num_threads} CPU threads")
    memory = f"{decimal(found.memory_bytes)} available" if found.memory_bytes else "this system does not say"
    print(f"  memory: {memory}")
    print(f"  disk: {decimal(found.disk_bytes)} free at {out.absolute()}")


def show(finding: "Finding") -> None:
    """Prints one line for a finding, with the mark ! if it is not whole, and its remedy below."""
    remedy = f"\n    -> {hint_in_flags(finding.remedy)}" if finding.remedy else ""
    print(with_addresses(f"{' ' if finding.is_whole else '!'} {finding.path}: {finding.result}{remedy}"))


def show_forecast(config: "Config", shards: ShardSet, out: Path, trial_seconds: float) -> None:
    """Prints what a run needs and what is available. Raises InputError or ArtifactError if it cannot succeed."""
    from tinyllm.doctor.forecast import check_fits, check_windows, forecast, forecast_update_seconds

    check_windows(config, shards)
    need, settings = forecast(config), config.training
    epochs = need.tokens / shards.train_counts.tokens
    print(f"  model: {num_parameters(config.model):,} parameters, {settings.dtype}")
    print(f"  data: {need.tokens:,} tokens to see, {epochs:.1f} times the training set")
    available = available_memory_bytes()
    limit = f" of {decimal(available)} available" if available else ""
    print(f"  memory: about {decimal(need.memory_bytes)}{limit}")
    free = storage.free_bytes(out)
    print(
        f"  disk: {decimal(need.disk_bytes)} of {decimal(free)} free, for {settings.keep_checkpoints} checkpoints "
        f"of {decimal(need.checkpoint_bytes)} and the files that replace them"
    )
    if trial_seconds > 0:
        note(f"trying updates for about {trial_seconds:.0f} s ...")
        seconds = forecast_update_seconds(config, trial_seconds)
        hours = seconds * config.schedule.num_steps / 3600
        duration = f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
        print(f"  time: {seconds:.3g} s an update, {duration} for {config.schedule.num_steps:,}, without evaluations")
    check_fits(need, out, available)


def _is_shards(path: Path) -> bool:
    if not (path / storage.MANIFEST_NAME).exists():
        return False
    return storage.scan_manifest(path, check="sizes", on_item=storage.leave_out).kind == "shards"
