"""`POST /studio/api/generate` and `/next`: a text token by token with rivals, and the distribution of the next token.

Both are requests to the scheduler of a model, like those of `/v1/completions`.
"""

import time
from typing import Any, Self

import numpy as np
from fastapi import FastAPI, Request
from pydantic import Field, model_validator
from starlette.responses import Response

from tinyllm.generation import sampling
from tinyllm.serving.deliveries import Unread
from tinyllm.serving.models import ServedModel
from tinyllm.serving.request import TokenLogprob
from tinyllm.serving.schemas import MOST_NEW_TOKENS, DrawingBody, Ids
from tinyllm.serving.streams import EventResponse, WholeResponse
from tinyllm.serving.studio.answers import as_json, event
from tinyllm.serving.studio.commands import equivalent
from tinyllm.serving.studio.pieces import piece_fields, rival_fields, text_fields
from tinyllm.serving.studio.site import Studio
from tinyllm.serving.texts import Job, finish_reason, make_job, sampling_of, submit

MOST_RIVALS = 20
NUM_LIKELIEST = 40
"""Tokens that `/next` describes."""


class PlaygroundBody(DrawingBody):
    """The fields that `/generate` and `/next` share."""

    prompt: str | None = Field(default=None, description="A text, or give tokens.")
    tokens: Ids | None = Field(
        default=None, description="Token ids in place of a prompt; they are used unchanged, without BOS."
    )
    rivals: int = Field(default=0, ge=0, le=MOST_RIVALS, description="Likeliest tokens to report beside each token.")

    @model_validator(mode="after")
    def _check_one_prompt(self) -> Self:
        if (self.prompt is None) == (self.tokens is None):
            raise ValueError("prompt or tokens: give one of them")
        return self


class GenerateRequest(PlaygroundBody):
    """The body of `POST /studio/api/generate`."""

    max_tokens: int = Field(default=100, ge=1, le=MOST_NEW_TOKENS, description="Largest number of tokens to generate.")


class NextRequest(PlaygroundBody):
    """The body of `POST /studio/api/next`; `seed` and `rivals` have no effect."""


def add_playground(app: FastAPI, studio: Studio) -> None:
    """Adds the two routes."""

    @app.post("/studio/api/generate", include_in_schema=False)
    async def generate(body: GenerateRequest, request: Request) -> Response:
        async with studio.models.using(body.model) as model:
            job = await model.preparation.run(_generate_job, body, model)
            inbox = submit(job, keeps_tokens=True, limit_bytes=studio.limits.unread_bytes)
            server, needs_key = str(request.base_url).rstrip("/"), "authorization" in request.headers
            answer = GenerateAnswer(job, body.rivals, server, needs_key=needs_key)
            return EventResponse(inbox, answer, end=b"", failure=b"event: error\n")

    @app.post("/studio/api/next", include_in_schema=False)
    async def describe_next(body: NextRequest) -> Response:
        async with studio.models.using(body.model) as model:
            job = await model.preparation.run(_next_job, body, model)
            return WholeResponse(submit(job, keeps_tokens=False), NextAnswer(job))


def _generate_job(body: GenerateRequest, model: ServedModel) -> Job:
    ids, settings = _prompt_ids(body, model), sampling_of(body, body.max_tokens, model)
    # One more than asked for, because the token that is drawn may be among them.
    num_top = min(body.rivals + 1, model.tokenizer.vocab_size) if body.rivals else 0
    return make_job(
        model, "gen", [ids], settings, num_samples=1, top_logprobs=num_top, prompt_logprobs=True, prompt_tops=False
    )


def _next_job(body: NextRequest, model: ServedModel) -> Job:
    ids, settings = _prompt_ids(body, model), sampling_of(body, 1, model)
    return make_job(model, "next", [ids], settings, num_samples=1, with_logits=True)


def _prompt_ids(body: PlaygroundBody, model: ServedModel) -> list[int]:
    """The ids of the prompt. Raises ApiError for one that the model cannot read."""
    if body.tokens is not None:
        return model.prompt_ids(body.tokens, "tokens")
    return model.prompt_ids(body.prompt or "")


class GenerateAnswer:
    """The events of a generated text: `prompt`, a `token` each, and `done`."""

    def __init__(self, job: Job, num_rivals: int, server: str, *, needs_key: bool) -> None:
        """`server` is the address for commands, which have a header for a key if `needs_key`."""
        self._job, self._num_rivals, self._server, self._needs_key = job, num_rivals, server, needs_key
        self._first = self._last = time.perf_counter()
        self._num_tokens = 0
        self._reason: str | None = None

    def event(self, news: dict[int, Unread]) -> bytes:
        """The events of what is new."""
        (unread,) = news.values()
        content = b"" if unread.prompt is None else event("prompt", {"tokens": self._describe_prompt(unread)})
        self._last = time.perf_counter()
        if not self._num_tokens:
            self._first = self._last
        self._num_tokens += unread.num_tokens
        self._reason = finish_reason(unread.finish_reason)
        return content + b"".join(event("token", self._describe(token)) for token in unread.tokens)

    def last_event(self) -> bytes:
        """The event `done`."""
        (request,) = self._job.requests
        seconds = self._last - self._first
        fields = {
            "reason": self._reason,
            # The first token ends the reading of the prompt, so the time between tokens counts.
            "tokens_per_second": (self._num_tokens - 1) / seconds if seconds > 0 and self._num_tokens > 1 else None,
            "seed": request.sampling.seed,
            "command": equivalent(
                self._job.model, request.prompt_ids, request.sampling, self._server, needs_key=self._needs_key
            ),
        }
        return event("done", fields)

    def _describe_prompt(self, unread: Unread) -> list[dict[str, Any]]:
        (request,) = self._job.requests
        tokens = text_fields(self._job.model.tokenizer, request.prompt_ids)
        scores = unread.prompt or ()
        return [
            {**fields, "logprob": None if score is None else score.log_probability}
            for fields, score in zip(tokens, scores, strict=True)
        ]

    def _describe(self, token: TokenLogprob) -> dict[str, Any]:
        tokenizer = self._job.model.tokenizer
        fields = {**piece_fields(tokenizer, token.id), "logprob": token.log_probability}
        rivals = [each for each in token.top if each[0] != token.id][: self._num_rivals]
        return {**fields, "rivals": rival_fields(tokenizer, rivals)}


class NextAnswer:
    """The distribution of the next token: the likeliest tokens before and after the cuts of the settings."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def whole(self, news: list[Unread]) -> bytes:
        """The object. Raises FormatError for logits that are not finite."""
        (unread,) = news
        (request,) = self._job.requests
        tokenizer = self._job.model.tokenizer
        logits = unread.logits
        assert logits is not None, "the request asks for logits"
        seen = np.zeros(len(logits), np.bool_)
        seen[list(request.prompt_ids)] = True
        drawn = sampling.probabilities(logits, seen, (), request.sampling)
        wide = logits.astype(np.float64) - logits.max()
        log_probabilities = wide - np.log(np.exp(wide).sum())
        kept = drawn > 0
        order = np.lexsort((np.arange(len(logits)), -log_probabilities))[:NUM_LIKELIEST]
        tokens = [
            {**piece_fields(tokenizer, id), "logprob": float(log_probabilities[id]), "probability": float(drawn[id])}
            for id in order.tolist()
        ]
        fields = {
            "tokens": tokens,
            "kept": int(kept.sum()),
            "entropy": float(-(drawn[kept] * np.log(drawn[kept])).sum()),
            "covered": float(np.exp(log_probabilities[kept]).sum()),
        }
        return as_json(fields)
