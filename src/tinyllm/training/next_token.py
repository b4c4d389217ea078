"""Next-token prediction on shards: the objective of a language model.

A batch is `tokens` (B, T + 1) int64: inputs are [:, :-1] and targets [:, 1:]. Every target counts.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tinyllm.config import Config, TrainingConfig
from tinyllm.errors import InputError, MismatchError, UsageError
from tinyllm.machine import ranks
from tinyllm.machine.signals import StopRequest
from tinyllm.shards.batches import WindowOrder, Windows, read_windows, step_windows, validation_windows
from tinyllm.shards.format import ShardSet, find_document_starts
from tinyllm.shards.order import ORDERS, PHILOX
from tinyllm.shards.text_bytes import TextBytes
from tinyllm.training.evaluate import evaluate
from tinyllm.training.inputs import fingerprint_shards
from tinyllm.training.loss import NextTokenLoss
from tinyllm.training.objective import Evaluation
from tinyllm.training.prefetch import Prefetcher
from tinyllm.training.step import Updater


class NextToken(NextTokenLoss):
    """The windows of `shards` in the order of `config`, on `device`."""

    only_whole_epochs = False

    def __init__(self, config: Config, shards: ShardSet, device: torch.device) -> None:
        """Raises InputError if the shards have no window, or no validation token.

        Raises UsageError if an update has fewer windows than there are ranks.
        """
        super().__init__()
        settings, num_ranks = config.training, ranks.num_ranks()
        self.rank, self.num_ranks = ranks.rank(), num_ranks
        self.windows_per_step = settings.batch_size * settings.accumulation_steps
        if num_ranks > self.windows_per_step:
            raise UsageError(
                f"training.batch_size x training.accumulation_steps is {self.windows_per_step}, so {num_ranks} ranks "
                "cannot each have a window of an update; start fewer ranks, or raise one of the two"
            )
        self.settings, self.shards, self.device = settings, shards, device
        self.tokens_per_step = config.tokens_per_step
        self.order = _order_windows(self.settings, shards)
        self.validation = _choose_validation_windows(self.settings, shards)
        self.text_bytes = TextBytes(shards.tokenizer)
        self.updates = Prefetcher(self._read_update, config.schedule.num_steps)

    def batches(self, step: int) -> Iterator[Tensor]:
        """The microbatches (B, T + 1) of update `step` for this rank; the last one may be smaller."""
        for windows in self.updates.take(step):
            yield self._to_device(windows)

    def num_targets(self, step: int) -> int:  # noqa: ARG002 (every step has the same number)
        """The number of tokens that an update predicts."""
        return self.tokens_per_step

    def num_epochs(self, step: int) -> float:
        """The number of times that each window was visited in the first `step` updates."""
        return step * self.windows_per_step / self.order.num_windows

    def metrics(self) -> dict[str, Any]:
        """Nothing beside the loss."""
        return {}

    def evaluate(self, updater: Updater, stop: StopRequest | None) -> Evaluation | None:
        """Loss and bits per byte on the validation windows; None if `stop` was requested before the end."""
        return evaluate(updater, self.validation, self._to_device, self.text_bytes, stop)

    def inputs(self) -> dict[str, Any]:
        """Fingerprints of the shards and of their tokenizer, and the name of the order of windows."""
        return {
            "shards": fingerprint_shards(self.shards),
            "tokenizer": self.shards.tokenizer.fingerprint,
            "order": self.order.permutation,
        }

    def resume_from(self, inputs: Mapping[str, Any]) -> None:
        """Takes over the order of windows; `inputs` without its name are of a version that had one order alone.

        Raises MismatchError for an order that this version does not know.
        """
        name = inputs.get("order", PHILOX)
        if name not in ORDERS:
            raise MismatchError(
                f"the run visits its windows in the order {name!r}, and this version knows {' and '.join(ORDERS)}",
                hint=f"go on with tinyllm {inputs.get('tinyllm', 'of a newer version')}, or start a new run",
            )
        self.order.permutation = name
        self.updates.forget()

    def _read_update(self, step: int) -> list[Windows]:
        """The microbatches of update `step` for this rank, in memory."""
        settings = self.settings
        windows = step_windows(
            self.order, step, settings.batch_size, settings.accumulation_steps, self.rank, self.num_ranks
        )
        return [read_windows(self.shards.train, self.order, microbatch) for microbatch in windows]

    def _to_device(self, batch: Windows) -> Tensor:
        tokens = torch.from_numpy(batch)
        if self.device.type == "cuda":
            # Only a copy from pinned memory returns before the GPU has finished the work that precedes it.
            tokens = tokens.pin_memory()
        return tokens.to(self.device, non_blocking=True)


def _order_windows(settings: TrainingConfig, shards: ShardSet) -> WindowOrder:
    starts = None
    if settings.align_documents:
        starts = (find_document_starts(array, shards.tokenizer.bos_id) for array in shards.train)
    return WindowOrder(shards.train.lengths, settings.sequence_length, settings.seed, starts)


def _choose_validation_windows(settings: TrainingConfig, shards: ShardSet) -> list[Windows]:
    """The microbatches of every evaluation; a validation set shorter than a window gives shorter windows."""
    lengths = shards.validation.lengths
    length = min(settings.sequence_length, int(lengths.max(initial=0)) - 1)
    if length < 1:
        raise InputError(f"{shards.path} has no validation tokens; prepare shards from more text")
    order = WindowOrder(lengths, length)
    chosen = validation_windows(order, settings.eval_batches * settings.batch_size)
    starts = range(0, len(chosen), settings.batch_size)
    return [read_windows(shards.validation, order, chosen[start : start + settings.batch_size]) for start in starts]
