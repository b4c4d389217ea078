"""The table of a plan: each number with its reason in plain words, and warnings about the corpus."""

from collections.abc import Iterator

from tinyllm.model.size import num_parameters, weight_bytes
from tinyllm.planning.laws import ceiling
from tinyllm.planning.plan import DROPOUT_EPOCHS, LEAST_OCCURRENCES, MEMORIZING_EPOCHS, Plan
from tinyllm.planning.survey import Survey

Row = tuple[str, str, str]
"""Name, value and reason."""
_OPTIMIZERS = {"muon": "Muon", "adamw": "AdamW"}


def explain(plan: Plan, survey: Survey) -> list[Row]:
    """The rows of the plan's table."""
    model, vocabulary = plan.model, plan.vocabulary
    coverage = "" if vocabulary.character_coverage == 1 else "; rare characters are spelled in bytes"
    return [
        (
            "corpus",
            f"{survey.num_bytes:,} bytes",
            f"{count(survey.num_documents, 'document')}, {count(survey.num_characters, 'different character')}",
        ),
        (
            "vocabulary",
            f"{vocabulary.size:,} tokens",
            f"{vocabulary.bytes_per_token:.2f} bytes per token; {_vocabulary_reason(plan)}{coverage}",
        ),
        (
            "parameters",
            f"{num_parameters(model):,}",
            f"the largest that this time can train and this corpus can fill; {weight_bytes(model) / 1e6:.1f} MB",
        ),
        (
            "shape",
            f"{model.num_layers} layers, {model.hidden_size} wide",
            f"{count(model.num_heads, 'head')} of {model.head_size} channels; width and depth grow together",
        ),
        ("context", f"{model.context_length} tokens", "the longest text that the model looks at"),
        (
            "update",
            f"{plan.batch_size} windows",
            "small updates learn most from few tokens",
        ),
        ("optimizer", _OPTIMIZERS[plan.optimizer], _optimizer_reason(plan)),
        (
            "learning rate",
            f"{plan.peak:g}",
            f"the peak for {_OPTIMIZERS[plan.optimizer]} at this size; it falls in the last 60 % of the run",
        ),
        (
            "updates",
            f"{plan.num_steps:,}",
            f"{_updates_reason(plan)}: {plan.num_tokens:,} tokens",
        ),
        ("epochs", f"{plan.epochs:.1f}", "how many times the run reads the corpus"),
        ("dropout", f"{model.dropout:g}", _dropout_reason(plan)),
        (
            "validation",
            f"{plan.validation_fraction:.1%}",
            "held out: the loss on text that the model never learns from",
        ),
        (
            "expected",
            expectation(plan, survey),
            _expectation_reason(plan, survey),
        ),
    ]


def warnings(plan: Plan, survey: Survey) -> Iterator[str]:
    """Lines about a corpus that limits the result."""
    if plan.epochs >= MEMORIZING_EPOCHS:
        yield (
            f"{plan.corpus_tokens:,} tokens, read {plan.epochs:,.0f} times: the model will memorize them; "
            "more text helps more than more time"
        )
    elif plan.epochs >= DROPOUT_EPOCHS:
        yield f"the corpus is read {plan.epochs:.0f} times; more text would help more than more time"
    if survey.repeated_bytes * 10 > survey.num_bytes:
        share = survey.repeated_bytes / survey.num_bytes
        yield f"{share:.0%} of the corpus is in documents that equal an earlier one; they teach nothing new"


def count(number: int, noun: str) -> str:
    """The number and the noun, in the plural unless it is one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def expectation(plan: Plan, survey: Survey) -> str:
    """The expected result; the laws do not say how bad a run of a few updates ends."""
    if _is_beyond_laws(plan, survey):
        return f"{plan.expected_bits_per_byte:.1f} bits per byte or more"
    return f"about {plan.expected_bits_per_byte:.1f} bits per byte"


def show_time(seconds: float) -> str:
    """A duration in words."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _is_beyond_laws(plan: Plan, survey: Survey) -> bool:
    return plan.expected_bits_per_byte >= ceiling(survey.compressed_bits)


def _expectation_reason(plan: Plan, survey: Survey) -> str:
    if _is_beyond_laws(plan, survey):
        return "the run is too short for the laws that a series of small runs gave"
    return "on the validation text, by laws that a series of small runs gave"


def _vocabulary_reason(plan: Plan) -> str:
    if plan.occurrences >= LEAST_OCCURRENCES:
        return "each token occurs often enough to be learned"
    return f"a token occurs {plan.occurrences:.0f} times on average, too seldom to be learned well"


def _updates_reason(plan: Plan) -> str:
    reason = f"as many as fit into {show_time(plan.seconds)} here"
    if plan.is_shortened:
        reason = "further epochs would only memorize the text"
    return f"{reason}; fewer if the validation loss stops falling" if plan.may_end_early else reason


def _optimizer_reason(plan: Plan) -> str:
    if plan.optimizer == "adamw":
        return "learns most from much text that is read once or twice"
    return "learns most from few tokens, and from text that is read again"


def _dropout_reason(plan: Plan) -> str:
    if plan.model.dropout:
        return f"the corpus is read {plan.epochs:.0f} times: dropout delays memorization"
    return "in a series of runs, dropout did harm where a text was read a few times"
