"""`tinyllm doctor --plan`: prints what a run would cost, on known GPUs or on machines like this one."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from tinyllm.cli.console import note
from tinyllm.config.layers import build_config, file_layer
from tinyllm.config.recipes import read_recipe
from tinyllm.errors import UsageError

if TYPE_CHECKING:
    from tinyllm.config import Config
    from tinyllm.doctor.cost import Cost, Rate

VOCABULARY = 32_000
"""Tokens of the vocabulary if neither shards nor a file give their number: that of Llama 2."""
MFU = 0.4
"""The default of `--mfu`."""


@Parameter(name="*")
@dataclass(frozen=True)
class PlanOptions:
    """The run and the devices of a plan."""

    tokens: Annotated[
        float | None, Parameter(help="For --plan: tokens to train on, such as 3e9; default: the recipe's.")
    ] = None
    gpus: Annotated[int, Parameter(help="For --plan: number of GPUs, or of machines like this one.")] = 1
    gpu: Annotated[
        str | None,
        Parameter(help="For --plan: a100, h100, h200, b200, l4, l40s, rtx4090, mi300x; default: this machine."),
    ] = None
    price: Annotated[float | None, Parameter(help="For --plan: price of one GPU for an hour.")] = None
    mfu: Annotated[
        float, Parameter(help="For --plan: fraction of the peak rate that training reaches; small models reach less.")
    ] = MFU
    link: Annotated[
        float | None, Parameter(help="For --plan: GB/s that a GPU can send to others; default: within one host.")
    ] = None

    def check(self, *, plan: bool) -> None:
        """Raises UsageError for a number that is impossible, and for a flag that only a plan has."""
        given = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        if given and not plan:
            raise UsageError(f"--{given[0]} belongs to a plan; add --plan")
        for name, most in (
            ("tokens", 1e18),
            ("gpus", 1e6),
            ("price", 1e9),
            ("mfu", 1.0),
            ("link", 1e6),
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value <= most:
                raise UsageError(f"--{name} is {value}; give a number above 0 up to {most:g}")


def show_plan(path: Path | None, recipe: str, config: Path | None, options: PlanOptions, trial_seconds: float) -> None:
    """Prints the table of a run's cost, and a line if it does not fit."""
    from tinyllm.doctor.cost import Cost
    from tinyllm.doctor.cost_table import explain

    settings = _settings(path, recipe, config)
    if options.tokens is not None:
        num_steps = max(1, math.ceil(options.tokens / settings.tokens_per_step))
        schedule = settings.schedule.model_copy(update={"num_steps": num_steps})
        settings = settings.model_copy(update={"schedule": schedule})
    cost = Cost(settings, options.gpus, _rate(settings, options, trial_seconds))
    table = Table(title=f"a run of {recipe}", title_justify="left", show_header=False)
    for row in explain(cost, options.price):
        table.add_row(*row)
    Console(highlight=False).print(table)
    for line in _warnings(cost):
        note(line)


def _settings(path: Path | None, recipe: str, config: Path | None) -> "Config":
    """The settings of the run: those of the file over the recipe's, with the vocabulary of the shards in `path`."""
    model = {"vocab_size": VOCABULARY}
    if path is not None:
        from tinyllm.tokenizer.opening import open_tokenizer

        model = {"vocab_size": open_tokenizer(path).vocab_size}
    return build_config([("", {"model": model}), (f"recipe {recipe}", read_recipe(recipe)), file_layer(config)], note)


def _rate(config: "Config", options: PlanOptions, trial_seconds: float) -> "Rate":
    from tinyllm.doctor.cost import Rate

    link = None if options.link is None else options.link * 1e9
    if options.gpu is not None:
        from tinyllm.doctor.devices import find_device

        device = find_device(options.gpu)
        reason = (
            f"{device.title}: {options.mfu:.0%} of {device.flops_per_second / 1e12:,.0f} TFLOP/s in bfloat16 "
            f"({device.source}); the fraction is assumed"
        )
        return Rate(
            device.flops_per_second * options.mfu,
            reason,
            device.flops_per_second,
            device.memory_bytes,
            link or device.link_bytes_per_second,
            is_gpu=True,
        )
    if not trial_seconds:
        raise UsageError("a plan for this machine measures it; give --trial-seconds above 0, or name a --gpu")
    return _measured(config, link, trial_seconds)


def _measured(config: "Config", link: float | None, trial_seconds: float) -> "Rate":
    """The rate of this machine, from a trial of real updates."""
    from tinyllm.doctor.cost import Cost, Rate
    from tinyllm.doctor.forecast import forecast_update_seconds
    from tinyllm.machine.device import pick_device
    from tinyllm.machine.memory import device_memory_bytes

    note(f"trying updates for about {trial_seconds:.0f} s ...")
    device = pick_device(config.training.device)
    flops = Cost(config, 1, Rate(1.0, "")).flops_per_token * config.tokens_per_step
    rate = flops / forecast_update_seconds(config, trial_seconds)
    reason = f"this machine ({device}): {rate / 1e9:,.3g} GFLOP/s in a trial without torch.compile"
    return Rate(rate, reason, None, device_memory_bytes(device), link, is_gpu=device.type == "cuda")


def _warnings(cost: "Cost") -> list[str]:
    if cost.fits:
        return []
    return [
        f"the memory of a device is too small, also with {cost.parallel}: use more devices, a smaller "
        "training.batch_size, or a smaller model"
        if cost.num_devices > 1
        else "the memory of a device is too small: use several, a smaller training.batch_size, or a smaller model"
    ]
