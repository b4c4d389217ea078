"""From a request of the API to the texts that a scheduler generates, and the parts of answers that all routes share."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tinyllm.config import SamplingConfig
from tinyllm.serving.deliveries import Inbox
from tinyllm.serving.errors import ApiError
from tinyllm.serving.models import ServedModel
from tinyllm.serving.request import TextRequest, Ticket
from tinyllm.serving.schemas import MOST_REQUEST_TOKENS, MOST_TEXTS, DrawingBody, SamplingBody
from tinyllm.tokenizer.codec import Tokenizer


@dataclass(frozen=True)
class Job:
    """The texts of one request, prompt after prompt, and the facts that its answer repeats."""

    model: ServedModel
    id: str
    created: int
    prompts: tuple[tuple[int, ...], ...]
    num_samples: int
    """Texts of each prompt."""
    requests: tuple[TextRequest, ...]

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts, each counted once, as OpenAI does."""
        return sum(map(len, self.prompts))

    def usage(self, num_new_tokens: int) -> dict[str, int]:
        """OpenAI's object of token counts."""
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": num_new_tokens,
            "total_tokens": self.num_prompt_tokens + num_new_tokens,
        }


def make_job(
    model: ServedModel,
    prefix: str,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    num_samples: int,
    top_logprobs: int = 0,
    prompt_logprobs: bool = False,
    prompt_tops: bool = True,
    with_logits: bool = False,
) -> Job:
    """The job of `num_samples` texts for each of `prompts`; `prefix` begins its id.

    The other parameters are fields of `TextRequest`. Raises ApiError for more texts or tokens than a request may have.
    """
    num_texts = len(prompts) * num_samples
    if num_texts > MOST_TEXTS:
        raise ApiError(400, f"the request is for {num_texts} texts; at most {MOST_TEXTS} are allowed", param="n")
    if num_texts * sampling.max_new_tokens > MOST_REQUEST_TOKENS:
        asked = f"{num_texts} texts of {sampling.max_new_tokens:,} tokens"
        message = f"max_tokens: {asked} are more than the {MOST_REQUEST_TOKENS:,} tokens that one request may ask for"
        raise ApiError(400, message, param="max_tokens")
    given = tuple(map(tuple, prompts))
    requests = [
        TextRequest(ids, sampling, sample, top_logprobs, prompt_logprobs, prompt_tops, with_logits)
        for ids in given
        for sample in range(num_samples)
    ]
    job_id = f"{prefix}-{secrets.token_hex(12)}"
    return Job(model, job_id, int(time.time()), given, num_samples, tuple(requests))


def submit(job: Job, *, keeps_tokens: bool, limit_bytes: int | None = None) -> Inbox:
    """Queues the texts of `job`; returns the inbox of their news. The other parameters are those of `Ticket`.

    Raises the errors of `Scheduler.submit_group`.
    """
    ticket = Ticket(keeps_tokens=keeps_tokens, limit_bytes=limit_bytes)
    inbox = Inbox(len(job.requests), keeps_tokens=keeps_tokens)
    scheduler = job.model.scheduler
    scheduler.submit_group(job.requests, inbox.put, ticket)
    inbox.cancel = lambda: scheduler.cancel(ticket)
    inbox.release = lambda num_bytes: scheduler.release(ticket, num_bytes)
    return inbox


def sampling_of(body: DrawingBody, max_new_tokens: int, model: ServedModel) -> SamplingConfig:
    """The sampling settings of a request; without a seed, a random one. Raises ApiError for a wrong `logit_bias`."""
    more = body if isinstance(body, SamplingBody) else None
    return SamplingConfig(
        max_new_tokens=max_new_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=max(body.top_k, 0),
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=() if more is None else _biases(more.logit_bias, model),
        seed=secrets.randbits(63) if body.seed is None else body.seed % 2**63,
        stop=() if more is None else more.stops,
    )


def _biases(biases: dict[str, float], model: ServedModel) -> tuple[tuple[int, float], ...]:
    """Pairs of token id and bias. Raises ApiError for a key that is no id of the model."""
    for key in biases:
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise ApiError(400, f"logit_bias: {key[:40]!r} is no token id; /tokenize gives ids", param="logit_bias")
        model.check_ids([int(key)], "logit_bias")
        if str(int(key)) != key:
            raise ApiError(400, f"logit_bias: write token {key} without leading zeros", param="logit_bias")
    return tuple((int(key), bias) for key, bias in biases.items())


def finish_reason(reason: str | None) -> str | None:
    """OpenAI's word: an end token and a stop string are both `stop`."""
    return "stop" if reason == "end" else reason


def token_text(tokenizer: Tokenizer, id: int) -> str:
    """A token as log-probabilities name it: its text, or `bytes:\\xe2\\x98` if it is no whole character."""
    content = tokenizer.piece_bytes(id)
    if not content:
        return tokenizer.id_to_piece(id)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
