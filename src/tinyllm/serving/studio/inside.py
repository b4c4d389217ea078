"""`POST /studio/api/trace`: the inside of one pass of the PyTorch module. The scheduler and its engine take no part."""

import asyncio
import base64
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from fastapi import FastAPI
from pydantic import Field
from starlette.responses import Response

from tinyllm.errors import QueueFullError
from tinyllm.generation.trace import MOST_TOKENS, Trace
from tinyllm.serving.errors import ApiError
from tinyllm.serving.models import ServedModel
from tinyllm.serving.schemas import Body
from tinyllm.serving.studio.answers import answer
from tinyllm.serving.studio.pieces import piece_fields, text_fields
from tinyllm.serving.studio.site import Studio
from tinyllm.serving.threads import Threads
from tinyllm.tokenizer.codec import Tokenizer

MOST_ATTENTION_BYTES = 2**24
"""Attention weights of one answer, a byte each."""
MOST_WAITING = 8
"""Traces of one model that run or wait; more are refused."""
NUM_LIKELIEST = 3


class TraceRequest(Body):
    """The body of `POST /studio/api/trace`."""

    model: str | None = Field(default=None, max_length=1_000, description="Default: the server's first model.")
    text: str = Field(description=f"A text of at most {MOST_TOKENS} tokens.")


class Turns:
    """Traces one text at a time on each model."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._locks: WeakKeyDictionary[ServedModel, asyncio.Lock] = WeakKeyDictionary()
        self._num_waiting: WeakKeyDictionary[ServedModel, int] = WeakKeyDictionary()

    async def trace(self, model: ServedModel, ids: list[int]) -> Trace:
        """The trace of `ids`, made in a thread. Raises QueueFullError if too many wait, and as `Generator.trace`."""
        lock = self._locks.setdefault(model, asyncio.Lock())
        if self._num_waiting.get(model, 0) >= MOST_WAITING:
            raise QueueFullError(f"{MOST_WAITING} traces of this model wait already", 1)
        self._num_waiting[model] = self._num_waiting.get(model, 0) + 1
        try:
            async with lock:
                return await self._threads.call(model.generator.trace, ids, num_likeliest=NUM_LIKELIEST)
        finally:
            self._num_waiting[model] -= 1


def add_inside(app: FastAPI, studio: Studio) -> None:
    """Adds the route."""
    turns = Turns(studio.threads)

    @app.post("/studio/api/trace", include_in_schema=False)
    async def trace(body: TraceRequest) -> Response:
        async with studio.models.using(body.model) as model:
            ids = await model.preparation.run(model.prompt_ids, body.text, "text")
            check_size(model, len(ids))
            found = await turns.trace(model, ids)
            return await studio.threads.call(lambda: answer(describe(found, model.tokenizer)))


def check_size(model: ServedModel, num_tokens: int) -> None:
    """Raises ApiError for a text of more tokens than a trace or its answer can hold."""
    config = model.generator.config
    fitting = int((MOST_ATTENTION_BYTES / (config.num_layers * config.num_heads)) ** 0.5)
    most = min(MOST_TOKENS, fitting)
    if num_tokens > most:
        message = f"the text has {num_tokens:,} tokens; a trace of this model takes at most {most:,}"
        values = {"tokens": num_tokens, "most": most}
        raise ApiError(400, message, param="text", code="text_too_long", values=values)


def describe(trace: Trace, tokenizer: Tokenizer) -> dict[str, Any]:
    """The fields of the answer."""
    pieces = {id: piece_fields(tokenizer, id) for id in np.unique(trace.lens_ids).tolist()}
    lens = [
        [
            [{**pieces[id], "probability": round(probability, 4)} for id, probability in zip(*place, strict=True)]
            for place in zip(*row, strict=True)
        ]
        for row in zip(trace.lens_ids.tolist(), trace.lens_probabilities.tolist(), strict=True)
    ]
    weights = (255 * trace.attention).round().astype(np.uint8)
    return {
        "tokens": text_fields(tokenizer, trace.token_ids),
        "loss": trace.loss,
        "layers": weights.shape[0],
        "heads": weights.shape[1],
        "attention": base64.b64encode(weights.tobytes()).decode(),
        "roles": [
            {"layer": each.layer, "head": each.head, "role": each.role, "score": round(each.score, 4)}
            for each in trace.roles
        ],
        "lens": lens,
        "norms": [[round(norm, 4) for norm in row] for row in trace.norms.tolist()],
    }
