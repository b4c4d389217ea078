"""The training loop: fetch, update, log, evaluate, save; resumes from the newest whole checkpoint.

It prints nothing: a `TrainingReporter` receives every event. It knows neither data nor model format: an `Objective`
has the batches and their loss, a `ModelDirectory` keeps the best model. On several ranks, the first one writes.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from tinyllm import storage
from tinyllm.config import Config
from tinyllm.errors import Interrupted
from tinyllm.machine import launcher, ranks
from tinyllm.machine.memory import shortages_named, used_memory_bytes
from tinyllm.machine.signals import StopRequest, stop_signals
from tinyllm.machine.system import keep_freed_memory, peak_memory_bytes
from tinyllm.training import stop_log
from tinyllm.training.checkpoint import save_checkpoint
from tinyllm.training.divergence import count_bad
from tinyllm.training.dropout import seed_dropout
from tinyllm.training.metrics import RunLog
from tinyllm.training.objective import Evaluation, Objective
from tinyllm.training.optimizer import set_learning_rate
from tinyllm.training.outcome import Outcome, Reason
from tinyllm.training.path import choose_updater
from tinyllm.training.patience import count_evaluation, is_out_of_patience
from tinyllm.training.reporter import TrainingReporter
from tinyllm.training.resume import begin_state, find_checkpoint
from tinyllm.training.run_dir import check_run_directory, clear_away_leftovers, locked
from tinyllm.training.saved_model import ModelDirectory, keep_if_best
from tinyllm.training.schedule import learning_rate
from tinyllm.training.sharding import whole_model


class Trainer:
    """One run: a model, its objective and its directory."""

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        objective: Objective,
        directory: ModelDirectory,
        run: Path,
        *,
        device: torch.device,
        reporter: TrainingReporter,
        draw_samples: Callable[[nn.Module], list[str]] | None = None,
    ) -> None:
        """`directory` keeps the best model; `draw_samples` returns a model's texts to log at each evaluation."""
        self.config, self.model, self.objective, self.directory, self.run = config, model, objective, directory, run
        self.device, self.draw_samples = device, draw_samples
        self.log = RunLog(run, reporter)
        self.draws_dropout = any(isinstance(part, nn.Dropout) and part.p > 0 for part in model.modules())
        self.last_evaluation: Evaluation | None = None
        self.started = time.monotonic()

    def train(self, *, resume: bool, to_toml: Callable[[Config], str]) -> Outcome:
        """Trains until the last step, a signal or the time limit. Raises Interrupted, after saving, for a signal.

        Every stop evaluates its step, so that a model exists. `to_toml` formats the config for RUN/config.toml, with
        the chosen value in place of each `auto`.
        """
        keep_freed_memory()
        ranks.once(lambda: check_run_directory(self.run))
        with locked(self.run), stop_signals() as stop, shortages_named():
            if not stop.is_listening:
                self.log.note("training outside the main thread: signals do not save the run, checkpoints do")
            ranks.once(lambda: clear_away_leftovers(self.run, self.directory, self.log.note))
            checkpoint = ranks.once(lambda: find_checkpoint(self.run, resume, self.log.note))
            launcher.mark_started(self.run)
            if checkpoint is None:
                # A run that stops while it measures or compiles can then be resumed with its own settings.
                self._write_config(to_toml)
            self._choose_path(checkpoint)
            self.state = begin_state(
                checkpoint, self.config, self.objective, self.model, self.updater, self.directory, self.log.note
            )
            self._write_config(to_toml)
            self.log.open(self.state.step, self.state.best_loss, tensorboard=self.config.training.tensorboard)
            if self.state.step > 0 and not self._is_at_end():
                self.log.stopped(self.state.step, stop_log.RESUMED)
            try:
                return self._run(stop)
            finally:
                self.log.close()

    def _choose_path(self, checkpoint: Path | None) -> None:
        """Chooses precision, attention and compilation, and builds the updater; a resumed run keeps its choice."""
        self.config, self.updater = choose_updater(
            self.config, self.model, self.objective, self.device, checkpoint, self.log.note
        )

    def _write_config(self, to_toml: Callable[[Config], str]) -> None:
        ranks.once(lambda: storage.write_file(self.run / "config.toml", to_toml(self.config)))

    def _run(self, stop: StopRequest) -> Outcome:
        settings, num_steps = self.config.training, self.config.schedule.num_steps
        if settings.eval_only:
            self._evaluate(stop, written=False, drawn=False)
            return self._outcome("evaluated")
        if self._evaluate_if_due(stop) and self._is_at_end():
            self._save()
        while not self._is_at_end():
            self._update(stop)
            self._evaluate_if_due(stop)
            at_end = self._is_at_end()
            out_of_time, signal_number = self._decide_stop(stop)
            if at_end or signal_number or out_of_time or self._checkpoint_is_due():
                self._save()
            if signal_number or (out_of_time and not at_end):
                self._evaluate_stop(stop, signal_number)
                return self._stopped(signal_number)
        if self.state.step >= num_steps:
            return self._outcome("done")
        self.log.note(
            f"ended early at step {self.state.step} of {num_steps}: "
            f"no lower validation loss in {self.state.worse_evaluations} evaluations"
        )
        self.log.stopped(self.state.step, stop_log.EARLY)
        return self._outcome("early")

    def _is_at_end(self) -> bool:
        done = self.state.step >= self.config.schedule.num_steps
        return done or is_out_of_patience(self.state, self.config.training.patience)

    def _decide_stop(self, stop: StopRequest) -> tuple[bool, int | None]:
        """Whether the time limit has passed, and the number of the signal that stops the run, equal on all ranks.

        The time of any rank counts, and the signal of the lowest rank that has one.
        """
        answers = ranks.gather((self._is_out_of_time(), stop.signal_number if stop else None))
        signal_number = next((number for _, number in answers if number is not None), None)
        if signal_number is not None:
            stop.accept(signal_number)
        return any(is_late for is_late, _ in answers), signal_number

    def _update(self, stop: StopRequest) -> None:
        """Does one optimizer update and logs it. Raises DivergenceError after `max_bad_steps` skipped ones in a row."""
        bool(stop)  # raises an exit that came while the step was compiled, and was caught there
        start, step = time.perf_counter(), self.state.step
        rate = learning_rate(step, self.config.schedule)
        set_learning_rate(self.updater.optimizers, rate)
        if self.draws_dropout:
            seed_dropout(self.config.training.seed, step)
        result = self.updater.update(self.objective.batches(step), self.objective.num_targets(step))
        seconds = time.perf_counter() - start
        self.state.step = step + 1
        stop.has_work_to_save = True
        self.state.seconds += seconds
        bad = {"loss": None, "grad_norm": None, "skipped": True} if result.skipped else {}
        record = {
            "step": self.state.step,
            "epoch": round(self.objective.num_epochs(self.state.step), 4),
            "loss": result.loss,
            "learning_rate": rate,
            "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
            "tokens_per_second": self.config.tokens_per_step / seconds,
            "memory_bytes": used_memory_bytes(),
        }
        self.log.update(record | self.objective.metrics() | bad, self.config.schedule.num_steps)
        count_bad(self.state, result.skipped, self.config.training.max_bad_steps, self.run, self.log.note)

    def _evaluate_if_due(self, stop: StopRequest) -> bool:
        """Evaluates at every `eval_interval`, saves the best model, and samples; returns whether it did.

        A stop request skips or interrupts the evaluation. A resumed run repeats it first.
        """
        step = self.state.step
        due = step % self.config.training.eval_interval == 0 or step == self.config.schedule.num_steps
        if not due or self.state.evaluated_step == step or (self.objective.only_whole_epochs and not step):
            return False
        evaluation = self._evaluate(stop)
        if evaluation is None:
            return False
        if step:
            self._keep_if_best(evaluation)
            count_evaluation(self.state, evaluation)
            if self.draw_samples is not None:
                model = whole_model(self.model)
                self.log.samples(step, self.config.sample.prompt, partial(self.draw_samples, model))
        self.state.evaluated_step = step
        return True

    def _evaluate(self, stop: StopRequest | None, *, written: bool = True, drawn: bool = True) -> Evaluation | None:
        """Evaluates and logs the step; returns None if a stop request came before the end."""
        evaluation = self.objective.evaluate(self.updater, stop)
        if evaluation is not None:
            self.last_evaluation = evaluation
            self.log.evaluation({"step": self.state.step, **evaluation.record()}, written=written, drawn=drawn)
        return evaluation

    def _evaluate_stop(self, stop: StopRequest, signal_number: int | None) -> None:
        """Evaluates the step that a run stops at, and saves the model if it is the best; writes no line of metrics.

        So a resumed run logs the same metrics as an uninterrupted one; the line of the stop has the evaluation. The
        checkpoint is already written: a second signal ends the process at once and loses nothing.
        """
        stop.has_work_to_save = False
        measured = None
        if self.state.evaluated_step != self.state.step and not self.objective.only_whole_epochs:
            evaluation = self._evaluate(None, written=False)
            assert evaluation is not None
            self._keep_if_best(evaluation)
            measured = evaluation.record()
        reason = "time" if signal_number is None else f"signal {signal_number}"
        self.log.stopped(self.state.step, reason, measured)

    def _keep_if_best(self, evaluation: Evaluation) -> None:
        always = self.config.training.always_save_checkpoint
        if keep_if_best(self.directory, self.model, self.state, evaluation, always=always):
            self.log.reporter.model_saved(self.directory.path)

    def _save(self) -> None:
        self.log.sync()
        folder, keep = self.run / "checkpoints", self.config.training.keep_checkpoints
        save_checkpoint(folder, self.state, self.model, self.updater, keep)

    def _checkpoint_is_due(self) -> bool:
        settings = self.config.training
        evaluated = self.state.step % settings.eval_interval == 0
        return self.state.step % settings.checkpoint_interval == 0 or (settings.always_save_checkpoint and evaluated)

    def _is_out_of_time(self) -> bool:
        limit = self.config.training.max_minutes
        return bool(limit) and time.monotonic() - self.started > limit * 60

    def _stopped(self, signal_number: int | None) -> Outcome:
        """The outcome of a run that the time limit stopped. Raises Interrupted if a signal stopped it."""
        outcome = self._outcome("time")
        if signal_number is None:
            return outcome
        model = "there is no model yet" if outcome.model is None else f"{self.directory.path} is of {outcome.model}"
        raise Interrupted(
            f"stopped at step {self.state.step} and saved; {model}",
            signal_number,
            hint="go on with `resume=True`",
        )

    def _outcome(self, reason: Reason) -> Outcome:
        return Outcome(
            reason,
            self.state,
            self.last_evaluation,
            ranks.once(self.directory.read),
            num_tokens=self.state.step * self.config.tokens_per_step,
            num_parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            peak_memory_bytes=peak_memory_bytes(),
            name=self.run.name,
            records=self.log.records(),
        )
