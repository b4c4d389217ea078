"""The result of generation: one text with its tokens, and its view in a notebook."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tinyllm import markup
from tinyllm.generation.batch import Batch, FinishReason


@dataclass(frozen=True)
class Generation:
    """One generated text."""

    prompt: str
    """The text that it continues."""
    text: str
    """The continuation alone."""
    token_ids: list[int]
    """Every token drawn, including the one that ended the text."""
    log_probabilities: list[float]
    """Log-probability of each token under the model, before temperature and filters, in nats."""
    finish_reason: FinishReason
    """The reason why the text ended: `length` (max_new_tokens), `stop` (a stop string) or `end` (an end token)."""
    slid: bool
    """Whether the text outgrew the context, so that the window dropped its beginning."""
    seconds: float
    """Time from the prompt to the last token; the same for all samples of a batch."""

    pieces: list[str] = field(default_factory=list, repr=False)
    """The text that each token completes, empty for a part of a character. A stop string is cut off in `text` alone."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens of this text per second."""
        return len(self.token_ids) / self.seconds

    def _repr_html_(self) -> str:
        ends = {"length": "reached max_new_tokens", "stop": "reached a stop string", "end": "ended by itself"}
        facts = [f"{len(self.token_ids)} tokens", f"{self.tokens_per_second:,.0f} tokens/s", ends[self.finish_reason]]
        pieces = _until(self.pieces, self.text)
        if len(self.log_probabilities) != len(self.pieces):
            return markup.frame(markup.text(self.prompt, dim=True), markup.plain_text(pieces), markup.line(*facts))
        # Tokens of a stop string are cut off like their text.
        return markup.shaded_text(zip(pieces, self.log_probabilities, strict=False), facts, self.prompt)


def _until(pieces: Sequence[str], text: str) -> list[str]:
    """`pieces` up to the end of `text`, which they begin with; `text` itself if there are no pieces."""
    kept, left = [], len(text)
    for piece in pieces or [text]:
        kept.append(piece[:left])
        left -= len(kept[-1])
    return kept


def results(prompts: Sequence[str], batch: Batch) -> list[Generation]:
    """The result of each text of `batch`, which continues one of `prompts`."""
    return [
        Generation(
            prompt=prompt,
            text=sample.text,
            token_ids=sample.token_ids,
            log_probabilities=sample.log_probabilities,
            finish_reason=sample.finish_reason or "length",
            slid=slid,
            seconds=batch.seconds,
            pieces=sample.pieces,
        )
        for prompt, sample, slid in zip(prompts, batch.samples, batch.slid, strict=True)
    ]
