"""The training loop: fetch, update, log, evaluate, save; resumes from the newest whole checkpoint.

It prints nothing: a `Reporter` receives every event. The caller passes the function that draws samples, because
training does not import generation.
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
from tinyllm.config import Config, TrainingSamplesConfig
from tinyllm.errors import (
    ArtifactError,
    DivergenceError,
    InputError,
    Interrupted,
    ResourceError,
    TinyllmError,
    UsageError,
)
from tinyllm.machine.device import pick_device, seed_everything
from tinyllm.machine.memory import keep_freed_memory, peak_memory_bytes, shortages_named
from tinyllm.machine.signals import StopRequest, stop_signals
from tinyllm.model.init import initialize_mimetic
from tinyllm.model.size import num_parameters
from tinyllm.model.transformer import Transformer
from tinyllm.model_dir import save_model, verify_model
from tinyllm.shards.batches import WindowOrder, Windows, read_batch, read_windows, validation_windows
from tinyllm.shards.format import ShardSet, find_document_starts
from tinyllm.shards.text_bytes import TextBytes
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
from tinyllm.training.evaluate import Evaluation, evaluate
from tinyllm.training.initial_weights import copy_weights
from tinyllm.training.inputs import compare_inputs, describe_inputs
from tinyllm.training.memory import check_memory
from tinyllm.training.metrics import MetricsLog
from tinyllm.training.optimizer import set_learning_rate
from tinyllm.training.path import choose_fast_path, restore_path
from tinyllm.training.run_dir import check_run_directory
from tinyllm.training.saved_model import SavedModel, check_loadable, model_details
from tinyllm.training.schedule import fit_warmup, learning_rate
from tinyllm.training.step import build_updater

Sampler = Callable[[Transformer, Tokenizer, TrainingSamplesConfig], list[str]]


class Reporter(Protocol):
    """Receives the events of a run; the command line draws a progress bar from them."""

    def note(self, message: str) -> None:
        """Called with one line for the user."""

    def step(self, record: dict[str, Any]) -> None:
        """Called after each update; `record` is its line of metrics."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """Called after each evaluation; `record` is its line of metrics."""

    def model_saved(self, path: Path) -> None:
        """Called after the model directory `path` was written."""


class Silence:
    """A `Reporter` that ignores every event."""

    def note(self, message: str) -> None:
        """Ignores the message."""

    def step(self, record: dict[str, Any]) -> None:
        """Ignores the update."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """Ignores the evaluation."""

    def model_saved(self, path: Path) -> None:
        """Ignores the saved model."""


@dataclass(frozen=True, repr=False)
class Outcome:
    """The result of a run."""

    reason: Literal["done", "time", "evaluated"]
    state: TrainingState
    evaluation: Evaluation | None
    """The last evaluation; None if nothing was left to do."""
    model: SavedModel | None
    """Step and loss of RUN/model; None if no evaluation gave a finite loss."""
    num_tokens: int
    """Number of tokens trained on, over all sessions."""
    num_parameters: int
    peak_memory_bytes: int
    """Largest resident memory of the process."""

    def __repr__(self) -> str:
        return f"Outcome({self.reason!r}, step={self.state.step}, model={self.model!r})"


class _EvaluationStopped(Exception):
    """A stop request interrupted an evaluation."""


class Trainer:
    """One run: a model, its data and its directory."""

    def __init__(
        self, config: Config, shards: ShardSet, run: Path, *, reporter: Reporter, sampler: Sampler | None = None
    ) -> None:
        self.config, self.run, self.reporter, self.sampler = self._fit_warmup(config, reporter), run, reporter, sampler
        settings = config.training
        if settings.num_threads:
            torch.set_num_threads(settings.num_threads)
        self.device = pick_device(settings.device)
        check_memory(self.config, self.device)
        check_loadable(self.config.model)
        self.shards = shards
        self.tokenizer = shards.tokenizer
        self.order = self._order_windows()
        self.validation = self._choose_validation_windows()
        seed_everything(settings.seed)
        with shortages_named():
            self.model = Transformer(config.model)
        if settings.initialization == "mimetic":
            initialize_mimetic(self.model, config.model.num_heads // config.model.num_kv_heads)
        if settings.init_from not in ("scratch", "resume") and not list_checkpoints(run / "checkpoints"):
            copy_weights(self.model, self.tokenizer, Path(settings.init_from).expanduser())
        self.model.to(self.device).train()
        self.text_bytes = TextBytes(self.tokenizer)
        self.last_evaluation: Evaluation | None = None
        self.started = time.monotonic()

    def train(self, *, resume: bool, to_toml: Callable[[Config], str]) -> Outcome:
        """Trains until the last step, a signal or the time limit. Raises Interrupted, after saving, for a signal.

        Every stop evaluates its step, so that RUN/model exists. `to_toml` formats the config for RUN/config.toml, with
        the chosen value in place of each `auto`.
        """
        keep_freed_memory()
        check_run_directory(self.run)
        with storage.exclusive(self.run), stop_signals() as stop, shortages_named():
            if not stop.is_listening:
                self.reporter.note("training outside the main thread: signals do not save the run, checkpoints do")
            self._clear_away_leftovers()
            checkpoint = self._find_checkpoint(resume)
            if checkpoint is None:
                # A run that stops while it measures or compiles can then be resumed with its own settings.
                storage.write_file(self.run / "config.toml", to_toml(self.config))
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
            stopping = bool(stop)
            if at_end or stopping or out_of_time or self._checkpoint_is_due():
                self._save()
            if stopping or (out_of_time and not at_end):
                self._evaluate_stop(stop)
                return self._stopped(stop)
        return self._outcome("done")

    def _evaluate_stop(self, stop: StopRequest) -> None:
        """Evaluates the step that a run stops at, and saves the model if it is the best; writes no line of metrics.

        So a resumed run logs the same metrics as an uninterrupted one. The checkpoint is already written: a second
        signal ends the process at once and loses nothing.
        """
        stop.has_work_to_save = False
        if self.state.evaluated_step == self.state.step:
            return
        record = self._measure(self._validation_batches())
        self.log.curve.add(record)
        self.log.draw()
        self.reporter.evaluation(record)
        self._keep_if_best()

    def _stopped(self, stop: StopRequest) -> Outcome:
        """The outcome of a run that the time limit stopped. Raises Interrupted if a signal stopped it."""
        outcome = self._outcome("time")
        if stop.signal_number is None:
            return outcome
        model = "there is no model yet" if outcome.model is None else f"{self.run / 'model'} is of {outcome.model}"
        raise Interrupted(
            f"stopped at step {self.state.step} and saved; {model}; go on with --resume auto", stop.signal_number
        )

    def _evaluate_if_due(self, stop: StopRequest) -> bool:
        """Evaluates at every `eval_interval`, saves the best model, and samples; returns whether it did.

        A stop request skips or interrupts the evaluation. A resumed run repeats it first.
        """
        step = self.state.step
        due = step % self.config.training.eval_interval == 0 or step == self.config.schedule.num_steps
        if not due or self.state.evaluated_step == step:
            return False
        try:
            self._evaluate(stop)
        except _EvaluationStopped:
            return False
        if step:
            self._keep_if_best()
            self._sample()
        self.state.evaluated_step = step
        return True

    def _update(self, stop: StopRequest) -> None:
        """Does one optimizer update and logs it. Raises DivergenceError after `max_bad_steps` skipped ones in a row."""
        settings, start = self.config.training, time.perf_counter()
        step = self.state.step
        rate = learning_rate(step, self.config.schedule)
        set_learning_rate(self.updater.optimizers, rate)
        if self.config.model.dropout:
            # Dropout is a function of the step: a resumed run drops the same activations.
            seed_everything(settings.seed + 1 + step)
        result = self.updater.update(self._microbatches(step), self.config.tokens_per_step)
        seconds = time.perf_counter() - start
        self.state.step = step + 1
        stop.has_work_to_save = True
        self.state.seconds += seconds
        record: dict[str, Any] = {
            "step": self.state.step,
            "loss": result.loss,
            "learning_rate": rate,
            "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
            "tokens_per_second": self.config.tokens_per_step / seconds,
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
        record = self._measure(self._validation_batches(stop))
        if not self.config.training.eval_only:
            self.log.write(record)
            self.log.draw()
        self.reporter.evaluation(record)

    def _measure(self, batches: Iterator[Tensor]) -> dict[str, Any]:
        """Evaluates on `batches`; returns the line of metrics."""
        result = evaluate(self.updater, batches, self.text_bytes)
        self.last_evaluation = result
        return {"step": self.state.step, "validation_loss": result.loss, "bits_per_byte": result.bits_per_byte}

    def _keep_if_best(self) -> None:
        assert self.last_evaluation is not None
        loss = self.last_evaluation.loss
        best = math.isfinite(loss) and (self.state.best_loss is None or loss < self.state.best_loss)
        if best:
            self.state.best_loss = loss
        if best or self.config.training.always_save_checkpoint:
            check_finite(self.model.state_dict(), self.state.step)
            details = model_details(self.state.step, self.last_evaluation, self.inputs["shards"])
            save_model(self.run / "model", self.model, self.config.model, self.tokenizer, details=details)
            self.reporter.model_saved(self.run / "model")

    def _sample(self) -> None:
        config = self.config.sample
        if self.sampler is None or not config.num_samples:
            return
        self.model.eval()
        try:
            for text in self.sampler(self.model, self.tokenizer, config):
                self.log.write_sample({"step": self.state.step, "prompt": config.prompt, "text": text})
        except ResourceError as error:
            # Samples are no reason to lose a run.
            self.reporter.note(f"no samples at step {self.state.step}; lower sample.num_samples: {error}")
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
        """Removes drafts of interrupted saves, and renames a damaged RUN/model to make room for a new one."""
        for folder in (self.run, self.run / "checkpoints"):
            for draft in storage.remove_dead_drafts(folder):
                self.reporter.note(f"{draft.folder}, left by an interrupted save of {draft.target}, is removed")
        model = self.run / "model"
        try:
            if model.exists():
                verify_model(model)
        except TinyllmError as error:
            aside = storage.set_aside(model)
            self.reporter.note(f"{error}; it was moved to {aside}, and the next evaluation writes a new one")

    def _find_checkpoint(self, resume: bool) -> Path | None:
        """The newest whole checkpoint; None for a new run. Raises UsageError if a new run would overwrite one.

        Raises ArtifactError if every checkpoint is damaged.
        """
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
        """Chooses precision, attention and compilation, and builds the updater; a resumed run keeps its choice."""
        num_updates = self.config.schedule.num_steps
        if self.config.training.eval_only:
            num_updates = 0
        config = self.config
        if checkpoint is not None:
            config = restore_path(config, read_state(checkpoint).inputs, self.device)
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
        """Sets the state: that of `checkpoint`, or a new one. Raises MismatchError for a checkpoint of other inputs."""
        self.inputs = describe_inputs(self.config, self.shards)
        self.state = TrainingState(inputs=self.inputs)
        if checkpoint is None:
            return
        for change in compare_inputs(read_state(checkpoint).inputs, self.inputs, checkpoint):
            self.reporter.note(change)
        self.state = load_checkpoint(checkpoint, self.model, self.updater)
        self.state.inputs = self.inputs
        # A stop may have saved a better model after the checkpoint; without a model any finite loss is the best.
        saved = SavedModel.read(self.run / "model")
        if saved is None or not self.config.training.always_save_checkpoint:
            self.state.best_loss = None if saved is None else saved.loss
        self.reporter.note(f"going on from {checkpoint}, step {self.state.step}")

    @staticmethod
    def _fit_warmup(config: Config, reporter: Reporter) -> Config:
        """`config` with a warmup shorter than the run; reports a change."""
        schedule = fit_warmup(config.schedule)
        if schedule is config.schedule:
            return config
        reporter.note(
            f"schedule.warmup_steps {config.schedule.warmup_steps} would take all {schedule.num_steps} steps of the "
            f"run; the learning rate warms up over {schedule.warmup_steps} instead"
        )
        return config.model_copy(update={"schedule": schedule})

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
        """The microbatches of every evaluation; a validation set shorter than a window gives shorter windows."""
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

    def _validation_batches(self, stop: StopRequest | None = None) -> Iterator[Tensor]:
        """The microbatches of an evaluation, on the device. Raises _EvaluationStopped on a stop request."""
        for batch in self.validation:
            if stop:
                raise _EvaluationStopped
            yield self._to_device(batch)

    def _to_device(self, batch: Windows) -> Tensor:
        return torch.from_numpy(batch).to(self.device, non_blocking=True)

    def _outcome(self, reason: Literal["done", "time", "evaluated"]) -> Outcome:
        return Outcome(
            reason,
            self.state,
            self.last_evaluation,
            SavedModel.read(self.run / "model"),
            num_tokens=self.state.step * self.config.tokens_per_step,
            num_parameters=num_parameters(self.config.model),
            peak_memory_bytes=peak_memory_bytes(),
        )
