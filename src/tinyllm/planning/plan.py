"""The plan of a run: every number that a person would have to choose, with its reason and the expected result.

A plan is arithmetic on a survey, a speed and the laws. It reads no file and trains nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tinyllm.config import Config, ModelConfig
from tinyllm.errors import InputError, UsageError
from tinyllm.model.size import num_parameters, weight_bytes
from tinyllm.planning.laws import Laws
from tinyllm.planning.speed import Speed
from tinyllm.planning.survey import FULL_COVERAGE, Survey, Vocabulary

WIDTHS = (16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512)
"""Candidate hidden sizes."""
CHANNELS_PER_HEAD = 32
CONTEXT = 256
SMALL_BATCH, BATCH = 2, 4
"""Windows per update of a short run, and of a long one."""
LONG_RUN_TOKENS = 2_000_000
"""Trained tokens from which a run is long."""
FRESH_EPOCHS = 2
"""A long run that reads its corpus at most so often trains with AdamW; other runs train with Muon."""
ADAMW_PEAK = 3e-3
"""Learning rate of AdamW."""
TRAINED_PART = 0.92
"""Fraction of the time for updates; tokenizing, evaluating, saving and sampling take the rest."""
LEAST_STEPS = 50
"""A run has at least as many updates, even if they take longer than the time."""
NUM_LOG_LINES = 60
"""Lines of a log without a terminal, about."""
LEAST_TOKENS = 100
"""Tokens of the smallest corpus: enough for some windows, and for some tokens to hold out."""
LEAST_DOCUMENTS = 20
"""A corpus of at least as many documents has windows that begin at document starts."""
LEAST_OCCURRENCES, FEWEST_OCCURRENCES = 150, 20
"""The vocabulary is the largest whose tokens occur at least this often on average; the second number if none does."""
LEAST_TOKENS_PER_PARAMETER = 2
"""The model is so small that the run trains on at least this many tokens per parameter."""
MOST_PARAMETERS_PER_TOKEN = 4
"""The model has at most this many parameters per token of the corpus."""
VALIDATION_BYTES, VALIDATION_LIMITS = 100_000, (0.01, 0.1)
"""Size of the validation text, and the smallest and largest fraction of the corpus that it may be."""
TOKENS_PER_EVALUATION, EVALUATIONS = 400_000, (3, 12)
"""Trained tokens between evaluations, and the smallest and largest number of evaluations."""
EVALUATED_PART, EVALUATED_TOKENS = 1 / 30, (8_000, 40_000)
"""Tokens of one evaluation as a fraction of the trained tokens, and their smallest and largest number."""
DROPOUT_EPOCHS = 15
"""Epochs from which the run uses dropout."""
PATIENCE = 4
"""Evaluations in a row without a lower loss after which a run that reads its corpus `DROPOUT_EPOCHS` times ends."""
MEMORIZING_EPOCHS = 30
"""Epochs from which the model memorizes the corpus."""
MOST_EPOCHS = 60
"""Epochs after which a run ends, even if time is left."""
DROPOUT = 0.1
TOKENIZER_BYTES_PER_TOKEN = 110
"""Size of the tokenizer's files per token of the vocabulary."""


@dataclass(frozen=True)
class Limits:
    """The limits that the user sets."""

    seconds: float
    """Time of the whole run."""
    max_parameters: int | None = None
    max_file_bytes: int | None = None
    """Largest size of the model directory."""


@dataclass(frozen=True)
class Plan:
    """The numbers of a run."""

    vocabulary: Vocabulary
    model: ModelConfig
    batch_size: int
    num_steps: int
    optimizer: Literal["muon", "adamw"]
    peak: float
    validation_fraction: float
    expected_bits_per_byte: float
    corpus_tokens: int
    """Tokens of the training part of the corpus."""
    seconds: float
    """Time of the whole run."""
    aligned: bool
    """Whether windows begin with a document."""
    update_seconds: float = 0.0
    """Measured time of an update; 0 if it is not known."""

    @property
    def num_tokens(self) -> int:
        """Tokens that the run trains on, with repetitions."""
        return self.num_steps * self.batch_size * self.model.context_length

    @property
    def training_minutes(self) -> float:
        """Minutes of the updates: a run that would repeat its corpus too often ends before its time."""
        measured = self.num_steps * self.update_seconds
        return (measured or self.seconds * TRAINED_PART) / 60

    @property
    def is_shortened(self) -> bool:
        """Whether the run ends before its time, because one more update would exceed `MOST_EPOCHS`."""
        num_tokens = (self.num_steps + 1) * self.batch_size * self.model.context_length
        return num_tokens > MOST_EPOCHS * max(1, self.corpus_tokens)

    @property
    def epochs(self) -> float:
        """Passes of the run over the corpus."""
        return self.num_tokens / max(1, self.corpus_tokens)

    @property
    def needs_dropout(self) -> bool:
        """Whether the run reads its corpus `DROPOUT_EPOCHS` times with a model without dropout."""
        return self.epochs >= DROPOUT_EPOCHS and not self.model.dropout

    def with_dropout(self) -> "Plan":
        """The plan with `DROPOUT`, which makes an update slower."""
        return replace(self, model=self.model.model_copy(update={"dropout": DROPOUT}))

    @property
    def may_end_early(self) -> bool:
        """Whether the run ends when the validation loss stops falling."""
        return self.epochs >= DROPOUT_EPOCHS

    @property
    def occurrences(self) -> float:
        """Mean occurrences of a token of the vocabulary in the training part of the corpus."""
        return self.corpus_tokens / self.vocabulary.size

    def with_steps(self, num_steps: int, survey: Survey, laws: Laws) -> "Plan":
        """The plan with another number of updates, within `MOST_EPOCHS`, and the result expected of it."""
        tokens_per_step = self.batch_size * self.model.context_length
        num_steps = min(num_steps, max(LEAST_STEPS, MOST_EPOCHS * self.corpus_tokens // tokens_per_step))
        trained_bytes = num_steps * tokens_per_step * self.vocabulary.bytes_per_token
        expected = laws.bits_per_byte(
            num_parameters(self.model), trained_bytes, _train_bytes(survey), survey.compressed_bits
        )
        return replace(self, num_steps=num_steps, expected_bits_per_byte=expected)

    def sections(self) -> dict[str, dict[str, Any]]:
        """The settings of the run, by section of the config."""
        evaluated = _within(int(self.num_tokens * EVALUATED_PART), EVALUATED_TOKENS)
        num_evaluations = _within(self.num_tokens // TOKENS_PER_EVALUATION, EVALUATIONS)
        # The validation loss of text that is read many times rises again: the best model is between evaluations.
        interval = -(-self.num_steps // (EVALUATIONS[1] if self.may_end_early else num_evaluations))
        return {
            "model": self.model.model_dump(),
            "training": {
                "batch_size": self.batch_size,
                "accumulation_steps": 1,
                "sequence_length": self.model.context_length,
                "align_documents": self.aligned,
                "initialization": "mimetic",
                "eval_interval": interval,
                "patience": PATIENCE if self.may_end_early else 0,
                "eval_batches": max(1, evaluated // (self.batch_size * self.model.context_length)),
                "checkpoint_interval": interval,
                "log_interval": max(10, self.num_steps // NUM_LOG_LINES),
            },
            "schedule": {
                "num_steps": self.num_steps,
                "peak": self.peak,
                "floor": min(1e-5, self.peak),
                "warmup_steps": max(1, min(30, self.num_steps // 10)),
                "shape": "wsd",
                "decay_fraction": 0.6,
            },
            "optimizer": {"name": self.optimizer},
        }

    def config(self, **training: str) -> Config:
        """The config of the run; `training` overrides settings of that section."""
        sections = self.sections()
        return Config.model_validate(sections | {"training": sections["training"] | training})


def choose_plan(survey: Survey, vocabularies: Sequence[Vocabulary], speed: Speed, laws: Laws, limits: Limits) -> Plan:
    """The plan with the largest model that the time can train and the corpus can fill (see `_is_trainable`).

    Raises UsageError if the limits leave no model.
    """
    best = _choose_vocabulary(vocabularies, survey)
    for vocabulary in reversed(vocabularies[: vocabularies.index(best) + 1]):
        plans = [_plan(survey, vocabulary, width, speed, laws, limits) for width in WIDTHS]
        allowed = [plan for plan in plans if _is_within(limits, plan.model)]
        if allowed:
            trainable = [plan for plan in allowed if _is_trainable(plan)]
            return trainable[-1] if trainable else allowed[0]
    raise UsageError(
        "no model fits the limits; the smallest one that was tried has "
        f"{num_parameters(_model(vocabularies[0], WIDTHS[0])):,} parameters",
        hint="raise `max_parameters` or `max_file_bytes`",
    )


def _choose_vocabulary(vocabularies: Sequence[Vocabulary], survey: Survey) -> Vocabulary:
    """The largest vocabulary with `LEAST_OCCURRENCES` among those that cover the characters of the text.

    Otherwise the smallest of them, if it has `FEWEST_OCCURRENCES`. Otherwise the largest one that has them and spells
    many characters in bytes, as a short Chinese text needs. Otherwise the smallest one of all.
    """
    covering = [vocabulary for vocabulary in vocabularies if vocabulary.character_coverage >= FULL_COVERAGE]
    often = [vocabulary for vocabulary in covering if _occurrences(vocabulary, survey) >= LEAST_OCCURRENCES]
    if often:
        return often[-1]
    enough = [vocabulary for vocabulary in vocabularies if _occurrences(vocabulary, survey) >= FEWEST_OCCURRENCES]
    if covering[:1] and covering[0] in enough:
        return covering[0]
    return enough[-1] if enough else vocabularies[0]


def check_size(survey: Survey, vocabulary: Vocabulary) -> None:
    """Raises InputError if the corpus has fewer than `LEAST_TOKENS` tokens of `vocabulary`, the smallest one."""
    num_tokens = survey.num_bytes / vocabulary.bytes_per_token
    if num_tokens < LEAST_TOKENS:
        raise InputError(
            f"the corpus is too small to learn from: {survey.num_bytes:,} bytes, about {num_tokens:.0f} tokens; "
            f"give at least {LEAST_TOKENS} tokens, about {LEAST_TOKENS * vocabulary.bytes_per_token:.0f} bytes"
        )


def _plan(survey: Survey, vocabulary: Vocabulary, width: int, speed: Speed, laws: Laws, limits: Limits) -> Plan:
    """The plan for one width, whatever the limits of its size."""
    train_bytes = _train_bytes(survey)
    corpus_tokens = int(train_bytes / vocabulary.bytes_per_token)
    model = _model(vocabulary, width, _context(corpus_tokens))
    batch_size, num_steps = _count_updates(model, speed, limits.seconds * TRAINED_PART)
    num_tokens = num_steps * batch_size * model.context_length
    is_fresh = num_tokens >= LONG_RUN_TOKENS and num_tokens <= FRESH_EPOCHS * corpus_tokens
    plan = Plan(
        vocabulary,
        model,
        batch_size,
        num_steps,
        "adamw" if is_fresh else "muon",
        ADAMW_PEAK if is_fresh else laws.best_peak(num_parameters(model)),
        _validation_fraction(survey),
        0.0,
        corpus_tokens,
        limits.seconds,
        survey.num_documents >= LEAST_DOCUMENTS,
    )
    plan = plan.with_steps(num_steps, survey, laws)
    return plan.with_dropout() if plan.needs_dropout else plan


def _is_trainable(plan: Plan) -> bool:
    """Whether the run has enough tokens for each parameter, and the corpus is not too small for the model."""
    parameters = num_parameters(plan.model)
    enough = plan.num_tokens >= LEAST_TOKENS_PER_PARAMETER * parameters
    return enough and parameters <= MOST_PARAMETERS_PER_TOKEN * plan.corpus_tokens


def _occurrences(vocabulary: Vocabulary, survey: Survey) -> float:
    """Mean occurrences of a token in the training part of the corpus."""
    return _train_bytes(survey) / vocabulary.bytes_per_token / vocabulary.size


def _count_updates(model: ModelConfig, speed: Speed, seconds: float) -> tuple[int, int]:
    """Windows per update, and the number of updates in `seconds`; a short run has small updates."""
    for batch_size in (SMALL_BATCH, BATCH):
        num_tokens = batch_size * model.context_length
        num_steps = max(LEAST_STEPS, int(seconds / speed.update_seconds(model, num_tokens)))
        if num_steps * num_tokens < LONG_RUN_TOKENS:
            break
    return batch_size, num_steps


def _model(vocabulary: Vocabulary, width: int, context: int = CONTEXT) -> ModelConfig:
    """The shape of a width: more layers for wider models, heads of `CHANNELS_PER_HEAD` channels."""
    return ModelConfig(
        vocab_size=vocabulary.size,
        hidden_size=width,
        num_layers=max(3, round(2 + width / 48)),
        num_heads=max(1, width // CHANNELS_PER_HEAD),
        context_length=context,
    )


def _within(value: int, limits: tuple[int, int]) -> int:
    """`value`, or the nearer of the two limits if it is outside them."""
    least, most = limits
    return min(most, max(least, value))


def _is_within(limits: Limits, model: ModelConfig) -> bool:
    if limits.max_parameters is not None and num_parameters(model) > limits.max_parameters:
        return False
    num_bytes = weight_bytes(model) + model.vocab_size * TOKENIZER_BYTES_PER_TOKEN
    return limits.max_file_bytes is None or num_bytes <= limits.max_file_bytes


def _context(corpus_tokens: int) -> int:
    """The length of a window: `CONTEXT`, or less for a text of a few windows."""
    context = CONTEXT
    while context > 16 and context * 8 > corpus_tokens:
        context //= 2
    return context


def _train_bytes(survey: Survey) -> float:
    """The bytes of the corpus that are not held out."""
    return survey.num_bytes * (1 - _validation_fraction(survey))


def _validation_fraction(survey: Survey) -> float:
    """The part of the corpus that is held out."""
    least, most = VALIDATION_LIMITS
    return min(most, max(least, VALIDATION_BYTES / max(1, survey.num_bytes)))
