"""Requests of the API as pydantic models: names and defaults are OpenAI's, those of extra parameters vLLM's.

A parameter that is not listed is an error. `null` means the default. Bounds that depend on the model are checked where
the request is prepared (`completions`, `chat`). Validation stops at the first wrong item of a collection, and at
the first item that is too many.
"""

from itertools import islice
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticKnownError

MOST_TEXTS = 128
"""Texts of one request: prompts x the larger of `n` and `best_of`."""
MOST_NEW_TOKENS = 16_384
"""Largest `max_tokens`."""
MOST_REQUEST_TOKENS = 65_536
"""Tokens of all texts of one request together."""
MOST_STOPS, LONGEST_STOP = 4, 1_000
MOST_BIASES = 300
MOST_MESSAGES = 1_000
MOST_PARTS = 1_000
"""Parts of one message's content."""
SEED_LIMIT = 2**63

Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Id = Annotated[int, Field(ge=0, lt=2**31)]


def _one_message(what: str) -> WrapValidator:
    """Replaces the errors of a union's members, one for each, by one message."""

    def validate(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"it should be {what}") from None

    return WrapValidator(validate)


def _check_number_of_biases(value: Any) -> Any:
    """`value`. Raises pydantic's error for a dictionary that is too large, before its items are read."""
    if isinstance(value, dict) and len(value) > MOST_BIASES:
        bound = {"field_type": "Dictionary", "max_length": MOST_BIASES, "actual_length": len(value)}
        raise PydanticKnownError("too_long", bound)
    return value


Ids = Annotated[list[Id], Field(min_length=1, fail_fast=True)]
Prompt = Annotated[
    str
    | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
    | Ids
    | Annotated[list[Ids], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)],
    _one_message(f"a text, a list of token ids, or a list of at most {MOST_TEXTS} of either"),
]
Stops = Annotated[
    Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS, fail_fast=True)],
    _one_message(f"a text of 1 to {LONGEST_STOP:,} characters, or a list of at most {MOST_STOPS} of them"),
]


class Body(BaseModel):
    """A JSON object whose unknown keys are errors, and in which `null` means the default."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        """`values` without nulls that mean the default, and with the first unknown key alone: one error is enough."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        unknown = {name: values[name] for name in islice((name for name in values if name not in fields), 1)}
        known = {name: values[name] for name in fields if name in values}
        return unknown | {
            name: value for name, value in known.items() if value is not None or fields[name].is_required()
        }


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool = Field(default=False, description="Send a last event with the numbers of tokens.")


class DrawingBody(Body):
    """The model and the rules for drawing a token, which all routes of generation share."""

    model: str | None = Field(default=None, max_length=1_000, description="Default: the server's first model.")
    temperature: float = Field(default=1.0, ge=0, le=2, description="Divides the logits; 0 = the most likely token.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Smallest set of tokens whose probabilities sum to p.")
    seed: int | None = Field(
        default=None, ge=-SEED_LIMIT, lt=SEED_LIMIT, description="The same seed gives the same text; default: random."
    )
    presence_penalty: float = Field(default=0.0, ge=-2, le=2, description="Lowers logits of generated tokens, once.")
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2, description="Lowers them by the number of occurrences.")
    top_k: int = Field(default=0, ge=-1, lt=2**31, description="Keep the k most likely tokens; 0 or -1 = all.")
    min_p: float = Field(
        default=0.0, ge=0, lt=1, description="Keep tokens of at least min_p x the largest probability."
    )
    repetition_penalty: float = Field(default=1.0, gt=0, le=1_000, description="Of tokens that occurred; 1 = off.")


class SamplingBody(DrawingBody):
    """Parameters that completions and chat share."""

    n: int = Field(default=1, ge=1, le=MOST_TEXTS, description="Texts for each prompt.")
    stream: bool = Field(default=False, description="Send the text in server-sent events.")
    stream_options: StreamOptions | None = Field(default=None, description="Only with stream.")
    stop: Stops = Field(default=[], description="Texts that end the generation; they are cut off.")
    logit_bias: Annotated[dict[str, Bias], BeforeValidator(_check_number_of_biases)] = Field(
        default={}, max_length=MOST_BIASES, description="Token id -> number added to its logit."
    )
    user: str | None = Field(default=None, max_length=1_000, description="Has no effect, as for OpenAI's models.")

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with an event of usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(SamplingBody):
    """The body of `POST /v1/completions`."""

    prompt: Prompt = Field(description="A text, token ids, or a list of either; ids are used unchanged, without BOS.")
    max_tokens: int = Field(default=16, ge=0, le=MOST_NEW_TOKENS, description="Largest number of tokens to generate.")
    best_of: int | None = Field(
        default=None, ge=1, le=MOST_TEXTS, description="Texts to generate, of which the n likeliest are sent."
    )
    logprobs: int | None = Field(default=None, ge=0, le=5, description="Likeliest tokens to report for each token.")
    echo: bool = Field(default=False, description="Send the prompt before each text.")

    @model_validator(mode="after")
    def _check_best_of(self) -> Self:
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(f"best_of is {self.best_of}; it should be at least n, which is {self.n}")
        if self.best_of is not None and self.stream and self.best_of > self.n:
            raise ValueError("best_of larger than n cannot be streamed: the best texts are known at the end")
        return self


class TextPart(Body):
    """A part of a message's content."""

    type: Literal["text"] = Field(description="Only text is supported.")
    text: str


class Message(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        str | Annotated[list[TextPart], Field(max_length=MOST_PARTS, fail_fast=True)],
        _one_message(f"a text, or a list of at most {MOST_PARTS:,} parts of the type text"),
    ]
    name: str | None = Field(default=None, max_length=1_000)

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(SamplingBody):
    """The body of `POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
    max_tokens: int | None = Field(
        default=None, ge=1, le=MOST_NEW_TOKENS, description="Default: what is left of the context and of the request."
    )
    max_completion_tokens: int | None = Field(
        default=None, ge=1, le=MOST_NEW_TOKENS, description="The newer name of max_tokens."
    )
    logprobs: bool = Field(default=False, description="Report the log-probability of each token.")
    top_logprobs: int | None = Field(
        default=None, ge=0, le=20, description="Likeliest tokens to report; needs logprobs."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is only allowed when logprobs is true")
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ValueError("max_tokens and max_completion_tokens are two names of one parameter; give one")
        return self


class TokenizeRequest(Body):
    """The body of `POST /tokenize`: a text as `content` (llama-server's name) or `prompt` (vLLM's)."""

    model: str | None = Field(default=None, max_length=1_000)
    content: str | None = None
    prompt: str | None = None
    add_special: bool | None = Field(default=None, description="Put BOS first; default: only with prompt.")
    add_special_tokens: bool | None = Field(default=None, description="vLLM's name of add_special.")

    @model_validator(mode="after")
    def _check_one_text(self) -> Self:
        if (self.content is None) == (self.prompt is None):
            raise ValueError("content or prompt: give one of them")
        return self

    @property
    def text_name(self) -> str:
        """The parameter that has the text."""
        return "content" if self.content is not None else "prompt"

    @property
    def text(self) -> str:
        """The text to convert."""
        return self.content if self.content is not None else self.prompt or ""

    @property
    def adds_special(self) -> bool:
        """Whether BOS comes first, by the default of the name that the text has."""
        for choice in (self.add_special, self.add_special_tokens):
            if choice is not None:
                return choice
        return self.prompt is not None


class DetokenizeRequest(Body):
    """The body of `POST /detokenize`."""

    model: str | None = Field(default=None, max_length=1_000)
    tokens: list[Id] = Field(fail_fast=True, description="Token ids.")


class ErrorFields(BaseModel):
    """An error in OpenAI's form."""

    message: str
    type: str
    param: str | None = Field(description="The wrong parameter.")
    code: str | None
    values: dict[str, str | int] = Field(default={}, description="Numbers and names of the message; often left out.")


class ErrorBody(BaseModel):
    """The body of every response with a status of 400 and more."""

    error: ErrorFields
