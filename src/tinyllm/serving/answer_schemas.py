"""Answers of the API as pydantic models, for `openapi.json` and `/docs` alone.

The answers themselves are built without validation; a contract test compares them with these models.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length"]


class Answer(BaseModel):
    """An answer has the fields listed, and no others."""

    model_config = ConfigDict(extra="forbid")


class ModelAnswer(Answer):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int = Field(description="Unix time in seconds.")
    owned_by: str
    max_model_len: int = Field(description="Context length in tokens.")


class ModelsAnswer(Answer):
    """All models; the first is the default."""

    object: Literal["list"]
    data: list[ModelAnswer]


class Usage(Answer):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(Answer):
    """Log-probabilities in nats, an item a token in each list; the first token of a prompt has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int] = Field(description="Characters of the returned text before the token.")


class CompletionChoice(Answer):
    """One text."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class CompletionResponse(Answer):
    """The answer of /v1/completions without `stream`."""

    id: str
    object: Literal["text_completion"]
    created: int = Field(description="Unix time in seconds.")
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class TokenAnswer(Answer):
    """A token and its log-probability in nats."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(TokenAnswer):
    """A token of the text, and the likeliest tokens at its place."""

    top_logprobs: list[TokenAnswer]


class ChatLogprobs(Answer):
    """The tokens of a message."""

    content: list[ChosenToken]
    refusal: None


class ChatMessage(Answer):
    """The message of the model."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Answer):
    """One answer of the model."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatResponse(Answer):
    """The answer of /v1/chat/completions without `stream`."""

    id: str
    object: Literal["chat.completion"]
    created: int = Field(description="Unix time in seconds.")
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TokenizeResponse(Answer):
    """Token ids of a text."""

    tokens: list[int]
    count: int
    max_model_len: int = Field(description="Context length in tokens.")


class DetokenizeResponse(Answer):
    """The text of token ids, by llama-server's name and by vLLM's."""

    content: str
    prompt: str


class HealthResponse(Answer):
    """The server accepts requests."""

    status: Literal["ok"]


Documented = dict[int | str, dict[str, Any]]


def documented(model: type[Answer], *, streams: bool = False) -> Documented:
    """The `responses` of a route whose answer is `model`, or server-sent events if the request asks for them."""
    answer: dict[str, Any] = {"model": model, "description": (model.__doc__ or "").strip()}
    if streams:
        events = {"schema": {"type": "string", "description": "Server-sent events, if the request asks for a stream."}}
        answer["content"] = {"text/event-stream": events}
    return {200: answer}
