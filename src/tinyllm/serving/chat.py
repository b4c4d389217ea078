"""`POST /v1/chat/completions`: a conversation through the model's own template, and its answer."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tinyllm.serving.deliveries import Unread
from tinyllm.serving.errors import ApiError
from tinyllm.serving.models import ServedModel
from tinyllm.serving.request import TokenLogprob
from tinyllm.serving.schemas import MOST_REQUEST_TOKENS, ChatRequest, Message
from tinyllm.serving.streams import as_event
from tinyllm.serving.texts import Job, finish_reason, make_job, sampling_of, token_text
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.model_proto import PieceType


def chat_job(body: ChatRequest, model: ServedModel) -> Job:
    """The texts that a chat request asks for. Raises ApiError for a conversation that the model cannot read."""
    text = render(body.messages, model)
    ids = model.check_length(model.encode(text, allow_special=True, param="messages"), "messages")
    left = min(model.context_length - len(ids), MOST_REQUEST_TOKENS // body.n)
    limit = body.max_tokens or body.max_completion_tokens or max(left, 1)
    return make_job(
        model,
        "chatcmpl",
        [ids],
        sampling_of(body, limit, model),
        num_samples=body.n,
        top_logprobs=body.top_logprobs or 0,
    )


def render(messages: Sequence[Message], model: ServedModel) -> str:
    """The text of a conversation up to the assistant's answer. Raises ApiError if the template refuses it.

    A message that holds a special token of the model is refused: it could pretend to be another message.
    """
    if model.chat_template is None:
        message = f"The model `{model.name}` has no chat template, so it cannot chat; use /v1/completions"
        raise ApiError(400, message, param="model", code="model_not_supported", values={"model": model.name})
    conversation = [
        {"role": each.role, "content": each.text} | ({"name": each.name} if each.name is not None else {})
        for each in messages
    ]
    for number, fields in enumerate(conversation):
        _check_no_special(fields, f"messages[{number}]", model.tokenizer)
    try:
        return model.templates.render(model.chat_template, conversation, _special_tokens(model.tokenizer))
    except ValueError as error:
        message = f"the model's chat template does not accept these messages: {error}"
        values = {"reason": str(error)}
        raise ApiError(400, message, param="messages", code="refused_by_template", values=values) from None


def _check_no_special(fields: dict[str, str], place: str, tokenizer: Tokenizer) -> None:
    """Raises ApiError if one of the texts that a client gave holds a special token."""
    for name, text in fields.items():
        for special in _special_pieces(tokenizer):
            if special in text:
                message = f"{place}.{name} holds {special}, which is a special token of this model"
                values = {"token": special}
                raise ApiError(400, message, param="messages", code="special_token_in_text", values=values)


def _special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The texts of special tokens by the names that templates use."""
    ids = {name: getattr(tokenizer, f"{name}_id") for name in ("bos", "eos", "pad", "unk")}
    return {f"{name}_token": tokenizer.id_to_piece(id) for name, id in ids.items() if id is not None and id >= 0}


@lru_cache(maxsize=16)
def _special_pieces(tokenizer: Tokenizer) -> tuple[str, ...]:
    return tuple(piece.text for piece in tokenizer.pieces if piece.type == PieceType.CONTROL)


class ChatAnswer:
    """The answer to a chat request: one object, or the events of a stream."""

    def __init__(self, body: ChatRequest, job: Job) -> None:
        self._body = body
        self._job = job
        self._has_role = [False] * len(job.requests)
        self._num_new_tokens = 0

    @property
    def keeps_tokens(self) -> bool:
        """Whether the answer has log-probabilities."""
        return self._body.logprobs

    def whole(self, news: Sequence[Unread]) -> bytes:
        """The object of all texts, after they have ended."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": each.text, "refusal": None},
                "logprobs": self._logprobs(each),
                "finish_reason": finish_reason(each.finish_reason),
            }
            for index, each in enumerate(news)
        ]
        usage = self._job.usage(sum(each.num_tokens for each in news))
        return json.dumps(self._object("chat.completion", choices) | {"usage": usage}).encode()

    def event(self, news: dict[int, Unread]) -> bytes:
        """The server-sent event of what is new; a text's first one has the role."""
        choices = []
        for index, each in news.items():
            self._num_new_tokens += each.num_tokens
            delta = {"content": each.text}
            if not self._has_role[index]:
                delta = {"role": "assistant", **delta}
                self._has_role[index] = True
            choices.append(
                {
                    "index": index,
                    "delta": delta,
                    "logprobs": self._logprobs(each),
                    "finish_reason": finish_reason(each.finish_reason),
                }
            )
        usage = {"usage": None} if self._body.include_usage else {}
        return as_event(self._object("chat.completion.chunk", choices) | usage)

    def last_event(self) -> bytes:
        """The event of usage, if the request asks for it."""
        if not self._body.include_usage:
            return b""
        usage = self._job.usage(self._num_new_tokens)
        return as_event(self._object("chat.completion.chunk", []) | {"usage": usage})

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._job.id,
            "object": kind,
            "created": self._job.created,
            "model": self._job.model.name,
            "choices": choices,
        }

    def _logprobs(self, news: Unread) -> dict[str, Any] | None:
        if not self._body.logprobs:
            return None
        return {"content": [self._describe(token) for token in news.tokens], "refusal": None}

    def _describe(self, token: TokenLogprob) -> dict[str, Any]:
        likeliest = [self._entry(id, nats) for id, nats in token.top]
        return {**self._entry(token.id, token.log_probability), "top_logprobs": likeliest}

    def _entry(self, id: int, nats: float) -> dict[str, Any]:
        tokenizer = self._job.model.tokenizer
        return {"token": token_text(tokenizer, id), "logprob": nats, "bytes": list(tokenizer.piece_bytes(id))}
