"""Continuous batching: one call of the engine serves all texts, and texts join and leave between two calls.

A step reads one token of each text that is being generated, and pieces of new prompts. Each text whose window is read
to its end then gets its next token. No text depends on the others: each equals that of `Generator.generate`.

Shapes: B texts that get a token together, V vocabulary.
"""

from collections.abc import Sequence
from itertools import compress, groupby
from operator import attrgetter
from time import perf_counter

import numpy as np

from tinyllm.config import SamplingConfig
from tinyllm.errors import FormatError
from tinyllm.generation.engines.protocol import Doubles, Engine, Logits, Mask, Tokens
from tinyllm.generation.token_choice import TokenChoice
from tinyllm.machine.memory import shortages_named
from tinyllm.serving.request import News, Observer
from tinyllm.serving.slots import Slots
from tinyllm.serving.text import Arrival, Text
from tinyllm.tokenizer.codec import Tokenizer

PROMPT_TOKENS_A_STEP = 128
"""Tokens of prompts that one step reads beside the texts being generated: more would make those wait longer."""


class ContinuousBatch:
    """The texts that run on one engine; `step` advances all of them. One thread at a time may call it."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, max_texts: int, observer: Observer) -> None:
        """At most `max_texts` texts run. Raises ResourceError if their slots do not fit into memory."""
        self.texts: list[Text] = []
        """The texts that have not ended, the first that came first."""
        self.num_read = self.num_prompt_read = self.num_generated = 0
        """Tokens since the start."""
        self._engine, self._tokenizer, self._observer = engine, tokenizer, observer
        self._slots = Slots(engine, max_texts)
        self._none_seen: Mask = np.zeros((max_texts, engine.vocab_size), np.bool_)

    @property
    def num_reused(self) -> int:
        """Tokens of prompts that were copied instead of read, since the start."""
        return self._slots.num_reused

    def add(self, arrival: Arrival) -> None:
        """Adds a text, which the next step begins to read."""
        text = Text(arrival, self._tokenizer, self._choice_of(arrival.request.sampling))
        self.texts.append(text)
        self._observer.admitted(text.start - arrival.time)

    def step(self) -> list[News]:
        """One call of the engine, and one more for each prompt that is scored.

        Returns the news of all texts that got a token or an error.

        An error of the engine ends all texts.
        """
        start = perf_counter()
        before = self._counts()
        try:
            with shortages_named():
                news = self._read() if self.texts else []
        except Exception as error:  # noqa: BLE001 (every text is told; the engine may serve the next ones)
            news = self._fail(self.texts, error)
        read, prompt, generated, reused = (
            after - earlier for after, earlier in zip(self._counts(), before, strict=True)
        )
        self._observer.step(read, prompt, generated, reused, perf_counter() - start)
        return news

    def _counts(self) -> tuple[int, int, int, int]:
        return self.num_read, self.num_prompt_read, self.num_generated, self.num_reused

    def remove(self, texts: Sequence[Text], *, keep: bool = True) -> None:
        """Ends `texts`; `keep` says whether later texts may copy the beginnings in their slots."""
        for text in texts:
            self._slots.release(text, keep=keep)
            self._observer.ended(len(text.sample.token_ids), text.seconds_per_token)
        if texts:
            self.texts = [text for text in self.texts if text not in texts]

    def close(self) -> None:
        """Ends all texts and closes every slot."""
        self.remove(self.texts, keep=False)
        self._slots.close()

    def _choice_of(self, config: SamplingConfig) -> TokenChoice:
        """The choice by `config`. Texts with equal settings share one: their tokens are drawn together."""
        unused = {"seed": 0, "max_new_tokens": 1, "stop": ()}
        settings: SamplingConfig = config.model_copy(update=unused)
        equal = (text.choice for text in self.texts if text.choice.config == settings)
        return next(equal, None) or TokenChoice(self._engine, settings)

    def _read(self) -> list[News]:
        """Gives new texts a slot, reads a part of each text, and draws the next token of those read to their end."""
        for text in self.texts:
            if text.slot is None:
                self._slots.place(text, self.texts)
        ready, parts, scored = self._parts()
        news = [each for text, count in scored for each in self._score(text, count)]
        return news + (self._read_parts(ready, parts) if parts else [])

    def _score(self, text: Text, count: int) -> list[News]:
        """Reads and scores the next `count` tokens of a prompt; returns the error of one that cannot be scored."""
        assert text.slot is not None
        assert text.scores is not None
        try:
            with shortages_named():
                tokens = np.array(text.window[text.held : text.held + count], np.int64)
                text.scores.add(self._engine.read_each(text.slot, tokens))
        except Exception as error:  # noqa: BLE001 (the request's error ends its text alone)
            return self._fail([text], error)
        self._advance(text, count)
        return []

    def _advance(self, text: Text, count: int) -> None:
        """Counts tokens of `text` that its slot holds from here on."""
        self.num_read += count
        self.num_prompt_read += min(count, text.num_unread_of_prompt)
        text.held += count

    def _read_parts(self, ready: list[Text], parts: list[tuple[Text, int]]) -> list[News]:
        """Reads `parts` in one call of the engine, and draws the next token of the texts `ready`, which come first."""
        tokens: Tokens | list[Tokens]
        if all(count == 1 for _, count in parts):
            tokens = np.array([text.window[text.held] for text, _ in parts], np.int64)[:, None]
        else:
            tokens = [np.array(text.window[text.held : text.held + count], np.int64) for text, count in parts]
        logits = self._engine.read([text.slot for text, _ in parts if text.slot is not None], tokens)
        for text, count in parts:
            self._advance(text, count)
        news, first = [], 0
        for _, group in groupby(ready, key=attrgetter("choice")):
            texts = list(group)
            news += self._draw(texts, logits[first : first + len(texts)] if len(texts) < len(logits) else logits)
            first += len(texts)
        return news

    def _parts(self) -> tuple[list[Text], list[tuple[Text, int]], list[tuple[Text, int]]]:
        """The texts that this step reads to their end, and the number of tokens of each text that it reads.

        Texts read to their end come first, grouped by choice: each group's logits are a slice, without a copy. Prompts
        that are scored come apart. Their last token predicts none of them and is read as others are.
        """
        room = PROMPT_TOKENS_A_STEP
        ends: list[tuple[Text, int]] = []
        pieces: list[tuple[Text, int]] = []
        scored: list[tuple[Text, int]] = []
        for text in self.texts:
            unread = text.num_unread
            if text.waits_for_reader:
                continue
            if unread == 1:
                ends.append((text, 1))
            elif text.slot is not None and room:
                count = min(unread - text.is_scored, room)
                room -= count
                (scored if text.is_scored else ends if count == unread else pieces).append((text, count))
        ends.sort(key=lambda part: id(part[0].choice))
        return [text for text, _ in ends], ends + pieces, scored

    def _draw(self, texts: list[Text], logits: Logits) -> list[News]:
        """Draws the next token of each of `texts`, which share a choice, from its row of `logits` (B, V).

        A text whose logits are not finite ends with an error.
        """
        uniforms = np.array([next(text.uniforms) for text in texts])
        news: list[News] = []
        try:
            tokens, log_probabilities = self._choose(texts, logits, uniforms)
        except FormatError as error:
            finite = np.array([np.isfinite(row).all() for row in logits])
            news += self._fail(list(compress(texts, ~finite)), error)
            texts, logits = list(compress(texts, finite)), logits[finite]
            if not texts:
                return news
            tokens, log_probabilities = self._choose(texts, logits, uniforms[finite])
        self.num_generated += len(texts)
        now = perf_counter()
        drawn = zip(texts, tokens.tolist(), log_probabilities.tolist(), logits, strict=True)
        news += [self._append(text, token, number, row, now) for text, token, number, row in drawn]
        self.remove([text for text in texts if text.sample.finish_reason])
        return news

    def _choose(self, texts: list[Text], logits: Logits, uniforms: Doubles) -> tuple[Tokens, Doubles]:
        choice = texts[0].choice
        seen = np.stack([text.seen for text in texts]) if choice.uses_seen else self._none_seen[: len(texts)]
        return choice.choose(logits, seen, uniforms, [text.sample.token_ids for text in texts])

    def _append(self, text: Text, token: int, log_probability: float, logits: Logits, now: float) -> News:
        """Appends a token to `text`, which gets an empty slot if its window slides; returns the news of it."""
        step = text.add(token, log_probability, logits, self._engine.context_length)
        if text.held == 0:
            self._slots.restart(text)
        if len(text.sample.token_ids) == 1:
            text.first_time = now
            self._observer.first_token(now - text.arrival.time)
        text.last_time = now
        return text.arrival.news(step)

    def _fail(self, texts: Sequence[Text], error: Exception) -> list[News]:
        """Ends `texts` with `error`; returns their last news."""
        news = [text.arrival.news(error) for text in texts]
        self.remove(texts, keep=False)
        return news
