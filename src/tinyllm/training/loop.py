"""The training loop: fetch, update, log, evaluate, save; on again from the newest whole checkpoint.

It prints nothing: what happens goes to a `Reporter`. Samples come from a function that the caller passes in, since
generation is another room.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from tinyllm import storage
from tinyllm.config import Config, SampleConfig
from tinyllm.errors import ArtifactError, DivergenceError, InputError, Interrupted, TinyllmError, UsageError
from tinyllm.model.init import initialize_mimetic
from tinyllm.model.size import num_parameters
from tinyllm.model.transformer import Transformer
from tinyllm.model_dir import load_model, save_model, verify_model
from tinyllm.runtime import (
    StopRequest,
    keep_freed_memory,
    peak_memory_bytes,
    pick_device,
    seed_everything,
    stop_signals,
)
from tinyllm.shards.batches import WindowOrder, Windows, read_batch, read_windows, validation_windows
from tinyllm.shards.format import ShardSet, find_document_starts
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.training.checkpoint import (
    TrainingState,
    check_finite,
    list_checkpoints,
    load_checkpoint,
    newest_whole_checkpoint,
    read_state,
    save_checkpoint,
)
from tinyllm.training.evaluate import Evaluation, evaluate, token_bytes
from tinyllm.training.fast_path import as_before, choose_fast_path
from tinyllm.training.inputs import compare_inputs, describe_inputs
from tinyllm.training.metrics import MetricsLog
from tinyllm.training.optimizer import set_learning_rate
from tinyllm.training.schedule import learning_rate
from tinyllm.training.step import build_updater

Sampler = Callable[[Transformer, Tokenizer, SampleConfig], list[str]]


class Reporter(Protocol):
    """Who hears what happens in a run; the command line draws a bar from it."""

    def note(self, message: str) -> None:
        """Something the user should know, in one line."""

    def step(self, record: dict[str, Any]) -> None:
        """An update is done; `record` is its line of metrics."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """An evaluation is done; `record` is its line of metrics."""

    def model_saved(self, path: Path) -> None:
        """The model directory `path` was written."""


class Silence:
    """A `Reporter` that keeps everything to itself."""

    def note(self, message: str) -> None:
        """Not told."""

    def step(self, record: dict[str, Any]) -> None:
        """Not told."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """Not told."""

    def model_saved(self, path: Path) -> None:
        """Not told."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    reason: Literal["done", "time", "evaluated"]
    state: TrainingState
    evaluation: Evaluation | None
    """The last one."""
    num_tokens: int
    """Tokens trained on in all."""
    num_parameters: int
    peak_memory_bytes: int
    """Largest resident memory of the process."""


class _BrokenOff(Exception):
    """An evaluation ended before its end because the run was asked to stop."""


class Trainer:
    """One run: a model, its data and its directory."""

    def __init__(
        self, config: Config, shards: ShardSet, run: Path, *, reporter: Reporter, sampler: Sampler | None = None
    ) -> None:
        self.config, self.run, self.reporter, self.sampler = config, run, reporter, sampler
        settings = config.training
        if settings.num_threads:
            torch.set_num_threads(settings.num_threads)
        self.device = pick_device(settings.device)
        self.shards = shards
        self.tokenizer = shards.tokenizer
        self.order = self._order_windows()
        self.validation = self._choose_validation_windows()
        seed_everything(settings.seed)
        self.model = Transformer(config.model)
        if settings.initialization == "mimetic":
            initialize_mimetic(self.model, config.model.num_heads // config.model.num_kv_heads)
        if settings.init_from not in ("scratch", "resume"):
            self._take_weights_from(Path(settings.init_from))
        self.model.to(self.device).train()
        self.bytes_of_id = token_bytes(self.tokenizer).to(self.device)
        self.last_evaluation: Evaluation | None = None
        self.started = time.monotonic()

    def train(self, *, resume: bool, to_toml: Callable[[Config], str]) -> Outcome:
        """Runs to the end, to a signal or to the time limit. Raises Interrupted, after saving, for a signal.

        `to_toml` writes the config for RUN/config.toml, where every `auto` is replaced by what was chosen.
        """
        keep_freed_memory()
        with storage.exclusive(self.run), stop_signals() as stop:
            self._clear_away_leftovers()
            checkpoint = self._find_checkpoint(resume)
            self._choose_path(checkpoint)
            self._restore(checkpoint)
            storage.write_file(self.run / "config.toml", to_toml(self.config))
            self.log = MetricsLog(self.run, step=self.state.step, tensorboard=self.config.training.tensorboard)
            try:
                return self._run(stop)
            finally:
                self.log.close()

    def _run(self, stop: StopRequest) -> Outcome:
        settings, num_steps = self.config.training, self.config.schedule.num_steps
        if settings.eval_only:
            self._evaluate(stop)
            return self._outcome("evaluated")
        if self._evaluate_if_due(stop) and self.state.step == num_steps:
            self._save()
        while self.state.step < num_steps:
            self._update(stop)
            self._evaluate_if_due(stop)
            at_end = self.state.step == num_steps
            out_of_time = bool(settings.max_minutes) and time.monotonic() - self.started > settings.max_minutes * 60
            if at_end or stop or out_of_time or self._checkpoint_is_due():
                self._save()
            if stop.signal_number is not None:
                raise Interrupted(
                    f"stopped at step {self.state.step} and saved; go on with --resume auto", stop.signal_number
                )
            if out_of_time and not at_end:
                return self._outcome("time")
        return self._outcome("done")

    def _evaluate_if_due(self, stop: StopRequest) -> bool:
        """Evaluates, keeps the model if it is the best, and samples, where the schedule says so.

        A stop request leaves it out or breaks it off; the run that goes on does it first, so its log has it.
        """
        step = self.state.step
        due = step % self.config.training.eval_interval == 0 or step == self.config.schedule.num_steps
        if not due or self.state.evaluated_step == step:
            return False
        try:
            self._evaluate(stop)
        except _BrokenOff:
            return False
        if step:
            self._keep_if_best()
            self._sample()
        self.state.evaluated_step = step
        return True

    def _update(self, stop: StopRequest) -> None:
        """One optimizer update, logged; a bad one is counted, and too many in a row end the run."""
        settings, start = self.config.training, time.perf_counter()
        step = self.state.step
        rate = learning_rate(step, self.config.schedule)
        set_learning_rate(self.updater.optimizers, rate)
        if self.config.model.dropout:
            # Dropout is a function of the step, so that a resumed run drops the same activations.
            seed_everything(settings.seed + 1 + step)
        result = self.updater.update(self._microbatches(step), self._tokens_per_step)
        seconds = time.perf_counter() - start
        self.state.step = step + 1
        stop.has_work_to_save = True
        self.state.seconds += seconds
        record: dict[str, Any] = {
            "step": self.state.step,
            "loss": result.loss,
            "learning_rate": rate,
            "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
            "tokens_per_second": self._tokens_per_step / seconds,
        }
        if result.skipped:
            record |= {"loss": None, "grad_norm": None, "skipped": True}
        self.log.write(record)
        self.reporter.step(record)
        self._count_bad(result.skipped)

    def _count_bad(self, skipped: bool) -> None:
        self.state.bad_steps = self.state.bad_steps + 1 if skipped else 0
        self.state.total_bad_steps += skipped
        limit = self.config.training.max_bad_steps
        if skipped:
            self.reporter.note(
                f"step {self.state.step}: loss or gradient not finite; update skipped, {self.state.bad_steps} in a row"
            )
        if self.state.bad_steps >= limit:
            checkpoints = list_checkpoints(self.run / "checkpoints")
            last = f"the last checkpoint is {checkpoints[0]}" if checkpoints else "there is no checkpoint yet"
            raise DivergenceError(
                f"{limit} updates in a row were not finite, up to step {self.state.step}; "
                f"lower schedule.peak or check the data; {last}"
            )

    def _evaluate(self, stop: StopRequest) -> None:
        result = evaluate(self.updater, self._validation_batches(stop), self.bytes_of_id)
        self.last_evaluation = result
        record = {"step": self.state.step, "validation_loss": result.loss, "bits_per_byte": result.bits_per_byte}
        if not self.config.training.eval_only:
            self.log.write(record)
            self.log.draw()
        self.reporter.evaluation(record)

    def _keep_if_best(self) -> None:
        assert self.last_evaluation is not None
        loss = self.last_evaluation.loss
        best = math.isfinite(loss) and (self.state.best_loss is None or loss < self.state.best_loss)
        if best:
            self.state.best_loss = loss
        if best or self.config.training.always_save_checkpoint:
            check_finite(self.model.state_dict(), self.state.step)
            details = {"step": self.state.step, "validation_loss": loss, "trained_on": self.inputs["shards"]}
            save_model(self.run / "model", self.model, self.config.model, self.tokenizer, details=details)
            self.reporter.model_saved(self.run / "model")

    def _sample(self) -> None:
        config = self.config.sample
        if self.sampler is None or not config.num_samples:
            return
        self.model.eval()
        for text in self.sampler(self.model, self.tokenizer, config):
            self.log.write_sample({"step": self.state.step, "prompt": config.prompt, "text": text})
        self.model.train()

    def _save(self) -> None:
        self.log.sync()
        save_checkpoint(
            self.run / "checkpoints", self.state, self.model, self.updater, self.config.training.keep_checkpoints
        )

    def _checkpoint_is_due(self) -> bool:
        settings = self.config.training
        evaluated = self.state.step % settings.eval_interval == 0
        return self.state.step % settings.checkpoint_interval == 0 or (settings.always_save_checkpoint and evaluated)

    def _clear_away_leftovers(self) -> None:
        """Removes what an interrupted save left, and sets a damaged RUN/model aside, so that a new one can come."""
        for folder in (self.run, self.run / "checkpoints"):
            for path in storage.remove_dead_drafts(folder):
                self.reporter.note(f"{path}, left by a save that was interrupted, is removed")
        model = self.run / "model"
        try:
            if model.exists():
                verify_model(model)
        except TinyllmError as error:
            aside = storage.set_aside(model)
            self.reporter.note(f"{error}; it is now {aside}, and the next evaluation writes a new one")

    def _find_checkpoint(self, resume: bool) -> Path | None:
        """The newest whole checkpoint to go on from; without `resume` it makes sure that a run overwrites nothing."""
        folder = self.run / "checkpoints"
        path, complaints = newest_whole_checkpoint(folder)
        for complaint in complaints.values():
            self.reporter.note(complaint)
        if not resume:
            if list_checkpoints(folder):
                raise UsageError(
                    f"{self.run} already holds a run; go on with --resume auto, or choose another --out directory"
                )
            return None
        if path is None:
            if complaints:
                raise ArtifactError(f"no checkpoint in {folder} is whole; see the lines above, and start a new run")
            self.reporter.note(f"no checkpoint in {folder}; starting at step 0")
            return None
        for damaged in complaints:
            storage.set_aside(damaged)
        return path

    def _choose_path(self, checkpoint: Path | None) -> None:
        """Settles precision, attention and compilation, and builds the updater; a run that goes on keeps its own."""
        num_updates = self.config.schedule.num_steps
        if self.config.training.eval_only:
            num_updates = 0
        config = self.config
        if checkpoint is not None:
            config = as_before(config, read_state(checkpoint).inputs, self.device)
        path = choose_fast_path(config, self.device, num_updates, self.reporter.note)
        self.reporter.note(f"training on {self.device}: {path.reason}")
        self.config = path.resolve(config)
        self.updater = build_updater(self.model, self.config, self.device)
        if path.compiled and not self.config.training.eval_only:
            problem = self.updater.warm_up(next(self._microbatches(0)))
            if problem:
                self.reporter.note(f"torch.compile failed, so training goes on without it: {problem}")
                self.config = replace(path, compiled=False).resolve(config)

    def _restore(self, checkpoint: Path | None) -> None:
        """The state at the start, that of `checkpoint` if there is one and it belongs to this run."""
        self.inputs = describe_inputs(self.config, self.shards)
        self.state = TrainingState(inputs=self.inputs)
        if checkpoint is None:
            return
        for change in compare_inputs(read_state(checkpoint).inputs, self.inputs, checkpoint):
            self.reporter.note(change)
        self.state = load_checkpoint(checkpoint, self.model, self.updater)
        self.state.inputs = self.inputs
        if not (self.run / "model").exists():
            self.state.best_loss = None
        self.reporter.note(f"going on from {checkpoint}, step {self.state.step}")

    def _take_weights_from(self, path: Path) -> None:
        source, tokenizer = load_model(path)
        if source.config != self.config.model or tokenizer.fingerprint != self.tokenizer.fingerprint:
            raise UsageError(f"init_from {path}: its shape or tokenizer is not that of this run; use its own settings")
        self.model.load_state_dict(source.state_dict())

    def _microbatches(self, step: int) -> Iterator[Tensor]:
        settings = self.config.training
        for microbatch in range(settings.accumulation_steps):
            yield self._to_device(
                read_batch(
                    self.shards.train, self.order, step, microbatch, settings.batch_size, settings.accumulation_steps
                )
            )

    def _order_windows(self) -> WindowOrder:
        settings, arrays = self.config.training, self.shards.train
        starts = None
        if settings.align_documents:
            starts = [find_document_starts(array, self.tokenizer.bos_id) for array in arrays]
        return WindowOrder([len(array) for array in arrays], settings.sequence_length, settings.seed, starts)

    def _choose_validation_windows(self) -> list[Windows]:
        """The microbatches of every evaluation. A validation set shorter than a window is read in shorter windows."""
        settings, lengths = self.config.training, [len(array) for array in self.shards.validation]
        length = min(settings.sequence_length, max(lengths, default=0) - 1)
        if length < 1:
            raise InputError(f"{self.shards.path} has no validation tokens; give tinyllm prepare more text")
        order = WindowOrder(lengths, length)
        chosen = validation_windows(order, settings.eval_iters * settings.batch_size)
        starts = range(0, len(chosen), settings.batch_size)
        return [
            read_windows(self.shards.validation, order, chosen[start : start + settings.batch_size]) for start in starts
        ]

    def _validation_batches(self, stop: StopRequest) -> Iterator[Tensor]:
        for batch in self.validation:
            if stop:
                raise _BrokenOff
            yield self._to_device(batch)

    def _to_device(self, batch: Windows) -> Tensor:
        return torch.from_numpy(batch).to(self.device, non_blocking=True)

    @property
    def _tokens_per_step(self) -> int:
        settings = self.config.training
        return settings.batch_size * settings.accumulation_steps * settings.sequence_length

    def _outcome(self, reason: Literal["done", "time", "evaluated"]) -> Outcome:
        return Outcome(
            reason,
            self.state,
            self.last_evaluation,
            num_tokens=self.state.step * self._tokens_per_step,
            num_parameters=num_parameters(self.config.model),
            peak_memory_bytes=peak_memory_bytes(),
        )
