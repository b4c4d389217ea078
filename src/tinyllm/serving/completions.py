"""`POST /v1/completions`: the texts of a request, and its answer in OpenAI's form, whole or in events."""

import json
from collections.abc import Sequence
from typing import Any

from tinyllm.serving.deliveries import Unread
from tinyllm.serving.models import ServedModel
from tinyllm.serving.request import TokenLogprob
from tinyllm.serving.schemas import CompletionRequest
from tinyllm.serving.streams import as_event
from tinyllm.serving.texts import Job, finish_reason, make_job, sampling_of, token_text
from tinyllm.tokenizer.codec import Tokenizer


def completion_job(body: CompletionRequest, model: ServedModel) -> Job:
    """The texts that a completion request asks for. Raises ApiError for a prompt that the model cannot read."""
    prompts = _prompts(body.prompt)
    names = ["prompt"] if len(prompts) == 1 else [f"prompt[{number}]" for number in range(len(prompts))]
    return make_job(
        model,
        "cmpl",
        [model.prompt_ids(prompt, name) for prompt, name in zip(prompts, names, strict=True)],
        # One token is drawn and left out for max_tokens 0, which scores a prompt.
        sampling_of(body, max(body.max_tokens, 1), model),
        num_samples=body.best_of or body.n,
        top_logprobs=body.logprobs or 0,
        prompt_logprobs=body.echo and body.logprobs is not None,
    )


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """The prompts, each a text or token ids."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [prompt]
    return list(prompt)


class CompletionAnswer:
    """The answer to a completion request: one object, or the events of a stream."""

    def __init__(self, body: CompletionRequest, job: Job) -> None:
        self._body = body
        self._job = job
        self._logprobs: list[TextLogprobs] = []
        if body.logprobs is not None:
            tokenizer = job.model.tokenizer
            self._logprobs = [TextLogprobs(tokenizer, each.prompt_ids, echo=body.echo) for each in job.requests]
        self._echoed = [False] * len(job.requests)
        self._num_new_tokens = 0

    @property
    def keeps_tokens(self) -> bool:
        """Whether the answer has log-probabilities, or chooses texts by them."""
        return self._body.logprobs is not None or self._job.num_samples > self._body.n

    def whole(self, news: Sequence[Unread]) -> bytes:
        """The object of all texts, after they have ended."""
        choices = []
        for first in range(0, len(news), self._job.num_samples):
            indices = range(first, first + self._job.num_samples)
            choices += [self._choice(index, news[index]) for index in self._best(indices, news)]
        for index, choice in enumerate(choices):
            choice["index"] = index
        return json.dumps(self._object(choices) | {"usage": self._job.usage(self._num_tokens(news))}).encode()

    def event(self, news: dict[int, Unread]) -> bytes:
        """The server-sent event of what is new."""
        self._num_new_tokens += self._num_tokens(news.values())
        fields = self._object([self._choice(index, each) for index, each in news.items()])
        return as_event(fields | ({"usage": None} if self._body.include_usage else {}))

    def last_event(self) -> bytes:
        """The event of usage, if the request asks for it."""
        if not self._body.include_usage:
            return b""
        return as_event(self._object([]) | {"usage": self._job.usage(self._num_new_tokens)})

    def _num_tokens(self, news: Any) -> int:
        return 0 if self._body.max_tokens == 0 else sum(each.num_tokens for each in news)

    def _best(self, indices: range, news: Sequence[Unread]) -> list[int]:
        """The `n` texts with the highest log-probability per token, likeliest first; all in order without `best_of`."""
        if len(indices) == self._body.n:
            return list(indices)

        def mean(index: int) -> float:
            tokens = news[index].tokens
            return sum(token.log_probability for token in tokens) / max(len(tokens), 1)

        return sorted(indices, key=mean, reverse=True)[: self._body.n]

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._job.id,
            "object": "text_completion",
            "created": self._job.created,
            "model": self._job.model.name,
            "choices": choices,
        }

    def _choice(self, index: int, news: Unread) -> dict[str, Any]:
        is_empty = self._body.max_tokens == 0
        text = "" if is_empty else news.text
        logprobs = None
        if self._body.echo and not self._echoed[index]:
            text = self._prompt_text(index) + text
            self._echoed[index] = True
        if self._body.logprobs is not None:
            logprobs = self._logprobs[index].describe(news.prompt, () if is_empty else news.tokens)
        reason = "length" if is_empty and news.finish_reason else finish_reason(news.finish_reason)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _prompt_text(self, index: int) -> str:
        prompt = self._body.prompt
        if isinstance(prompt, str):
            return prompt
        number = index // self._job.num_samples
        if isinstance(prompt[0], str):
            return str(prompt[number])
        return self._job.model.tokenizer.decode(self._job.prompts[number])


class TextLogprobs:
    """The log-probabilities of one text in the form of completions, in parts that follow each other."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], *, echo: bool) -> None:
        self._tokenizer = tokenizer
        self._prompt_ids = prompt_ids
        self._decoder = tokenizer.stream()
        self._offset = 0
        if not echo:
            for id in prompt_ids:
                self._decoder.push(id)

    def describe(
        self, prompt: Sequence[TokenLogprob | None] | None, tokens: Sequence[TokenLogprob]
    ) -> dict[str, list[Any]]:
        """OpenAI's object for the next tokens, after those of the `prompt` if they are reported.

        An offset counts characters of the text that the request returns. The first token of a prompt has no
        log-probability.
        """
        fields: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for id, token in zip(self._prompt_ids if prompt is not None else (), prompt or (), strict=True):
            self._append(fields, id, token)
        for token in tokens:
            self._append(fields, token.id, token)
        return fields

    def _append(self, fields: dict[str, list[Any]], id: int, token: TokenLogprob | None) -> None:
        text = token_text(self._tokenizer, id)
        fields["tokens"].append(text)
        fields["text_offset"].append(self._offset)
        self._offset += len(self._decoder.push(id))
        if token is None:
            fields["token_logprobs"].append(None)
            fields["top_logprobs"].append(None)
            return
        fields["token_logprobs"].append(token.log_probability)
        likeliest = {token_text(self._tokenizer, other): nats for other, nats in token.top}
        fields["top_logprobs"].append(likeliest | {text: token.log_probability})
