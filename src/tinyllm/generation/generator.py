"""The public interface of generation: prompt and settings in, texts out, whole or as a stream.

`generate` and `stream` run the same loop: with the same seed, the pieces of a stream join to the text of `generate`.
Any number of threads may use one generator: texts take turns on its engine (see `turns`), and each has its own slots
there. A generator works with any engine; torch is imported only if `load` chooses the torch engine.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from pydantic import ValidationError

from tinyllm import markup
from tinyllm.arguments import as_texts, as_whole_number, wrong_type
from tinyllm.config import ModelConfig, SamplingConfig, wrong_setting
from tinyllm.errors import ConfigError, InputError, UsageError
from tinyllm.generation.batch import Batch
from tinyllm.generation.engines.protocol import Engine, Logits, States, Tokens
from tinyllm.generation.prompts import Prompt, one_prompt, read_prompts
from tinyllm.generation.result import Generation, results
from tinyllm.generation.sampling import check_biases
from tinyllm.generation.scoring import Score, first_tokens, score_texts, windows
from tinyllm.generation.trace import MOST_TOKENS, Trace, trace_ids
from tinyllm.generation.turns import Turns
from tinyllm.machine.memory import check_memory, shortages_named
from tinyllm.model.size import num_parameters
from tinyllm.tokenizer.codec import Tokenizer

if TYPE_CHECKING:
    from tinyllm.model.transformer import Transformer

SAMPLE_BYTES, TOKEN_BYTES = 4096, 64
"""Memory outside the engine for each sample (random stream, decoder, lists), and for each token of a sample."""


class TextStream(Iterator[str]):
    """Iterates over the pieces of one text as they are generated; no piece ends inside a character.

    Any thread may generate other texts between two pieces. An unfinished stream needs no closing.
    """

    def __init__(self, prompt: str, batch: Batch, turns: Turns) -> None:
        self._prompt = prompt
        self._batch = batch
        self._pieces = batch.pieces()
        self._turns = turns
        weakref.finalize(self, turns.abandon, batch.slots).atexit = False

    def __repr__(self) -> str:
        state = "ended" if self._batch.ended else "open"
        return f"<TextStream {state}, {len(self._batch.samples[0].token_ids)} tokens>"

    def __next__(self) -> str:
        with self._turns.take():
            try:
                return next(piece for (piece,) in self._pieces if piece)
            except BaseException:  # the end, an error or an interrupt: no piece follows
                self._batch.close()
                raise

    @property
    def generation(self) -> Generation:
        """The whole result; generates the remaining pieces first."""
        for _ in self:
            pass
        return results([self._prompt], self._batch)[0]


class Generator:
    """A loaded model with its tokenizer. Make one with `tinyllm.load`."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        config: ModelConfig,
        path: Path | None = None,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        open_module: "Callable[[], Transformer] | None" = None,
    ) -> None:
        """`open_module` gives the PyTorch module of the same weights, for `trace`; it is called at most once."""
        self.engine = engine
        self.tokenizer = tokenizer
        self.config = config
        self.path = path
        """The model directory or file that it was loaded from; None for a model in memory."""
        self.settings = settings
        """Arguments of `load` beside the path that differ from their defaults."""
        self._turns = Turns(engine)
        self._open_module = open_module
        self._module: Transformer | None = None
        self._opening = threading.Lock()

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.startswith("_")]

    def __repr__(self) -> str:
        millions = num_parameters(self.config) / 1e6
        return f"<Generator {self.path or 'in memory'}, {millions:.1f} M parameters, {self.engine.description}>"

    def _repr_html_(self) -> str:
        config = self.config
        heads = f"{config.num_heads}" + (
            f", {config.num_kv_heads} for keys" if config.num_kv_heads != config.num_heads else ""
        )
        rows = {
            "model": str(self.path or "in memory"),
            "parameters": f"{num_parameters(config):,}",
            "layers": f"{config.num_layers} of width {config.hidden_size}",
            "heads": heads,
            "context": f"{config.context_length:,} tokens",
            "vocabulary": f"{config.vocab_size:,} tokens",
            "engine": self.engine.description,
        }
        return markup.frame(markup.table(rows.items()))

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt] = "",
        *,
        num_samples: int = 1,
        sampling: SamplingConfig | None = None,
        **settings: Any,
    ) -> list[Generation]:
        """`num_samples` continuations of `prompt`, generated in one batch; "" begins from BOS alone.

        A prompt of token ids is used unchanged: include BOS if the model needs it. A list of prompts, of any
        lengths, is continued in one batch. The result has the `num_samples` texts of the first prompt, then the next.

        `settings` are fields of `SamplingConfig` and override those of `sampling`. Sample i of a prompt does not depend
        on `num_samples` and the other prompts. Raises ConfigError for a setting out of range, and ResourceError for
        more samples than memory holds. Raises ConfigError for a prompt that is neither text nor token ids, and for a
        list of ids and texts. Raises InputError for a prompt longer than the context.

        >>> model = tinyllm.load()
        >>> model.generate("Once upon a time", max_new_tokens=4, temperature=0)[0].text
        ' there was a lively'
        >>> for text in model.generate(["The cat", "One day, a big"], max_new_tokens=4, temperature=0):
        ...     print(text.prompt + text.text)
        The cat called Rosa, a
        One day, a big hugums by
        """
        prompts = read_prompts(prompt)
        batch = self._batch(prompts, num_samples, sampling, settings)
        with self._turns.take():
            try:
                for _ in batch.pieces():
                    pass
            finally:
                batch.close()
        return results([self._prompt_text(prompt) for prompt in prompts for _ in range(num_samples)], batch)

    def stream(self, prompt: Prompt = "", *, sampling: SamplingConfig | None = None, **settings: Any) -> TextStream:
        """A stream of the pieces of one continuation of `prompt`; `stream.generation` is the whole result.

        Arguments and errors are those of `generate`.

        >>> for piece in tinyllm.load().stream("Once upon a time", max_new_tokens=4, temperature=0):
        ...     print(repr(piece))
        ' there'
        ' was'
        ' a'
        ' lively'
        """
        only = one_prompt(prompt)
        batch = self._batch([only], 1, sampling, settings)
        return TextStream(self._prompt_text(only), batch, self._turns)

    @overload
    def score(self, text: str) -> Score: ...

    @overload
    def score(self, text: list[str] | tuple[str, ...]) -> list[Score]: ...

    def score(self, text: str | list[str] | tuple[str, ...]) -> Score | list[Score]:
        """The log-probability of each token of `text`, with bits per byte and perplexity; a list for several texts.

        The first token follows BOS. Each token of a text longer than the context has at least half a context before
        it. Raises InputError for an empty text, ConfigError for anything but texts.

        >>> model = tinyllm.load()
        >>> score = model.score("Once upon a time")
        >>> score.pieces
        ['▁Once', '▁upon', '▁a', '▁time']
        >>> [round(nats, 2) for nats in score.log_probabilities]
        [-1.81, -0.06, -0.0, -0.0]
        >>> round(score.bits_per_byte, 3), round(score.perplexity, 2)
        (0.169, 1.6)
        """
        texts = _texts(text)
        with self._turns.take():
            scores = score_texts(self.engine, self.tokenizer, texts)
        return scores[0] if isinstance(text, str) else scores

    def logits(self, text: Prompt) -> Logits:
        """The logits (T, V), float32, after each token of `text`; row t predicts token t + 1.

        A text begins with BOS if the model expects it; token ids are used unchanged. Raises InputError for a text that
        is empty or longer than the context, ResourceError if the logits do not fit into memory.

        >>> model = tinyllm.load()
        >>> logits = model.logits("Once upon a")
        >>> logits.shape
        (4, 2048)
        >>> model.tokenizer.id_to_piece(logits[-1].argmax())
        '▁time'
        """
        ids = np.array(self._prompt_ids(one_prompt(text, "text"), "text"), np.int64)
        num_bytes = 2 * 4 * len(ids) * self.engine.vocab_size
        check_memory(f"logits of {len(ids)} tokens", num_bytes, "ask for a shorter text")
        with self._turns.take():
            return self.engine.read_logits([ids])[0]

    def hidden_states(self, text: Prompt, layer: int | None = -1) -> States:
        """The hidden states (T, D), float32, of each token of `text` after one layer; None gives all, (L + 1, T, D).

        Layer 0 is the embedding; L, or -1, is the last layer after the final norm, which the logits are computed from.
        This is the order of transformers. Raises UsageError for a layer that does not exist, and as `logits`.

        >>> model = tinyllm.load()
        >>> model.hidden_states("Once upon a").shape
        (4, 128)
        >>> model.hidden_states("Once upon a", layer=None).shape
        (6, 4, 128)
        """
        num_states = self.config.num_layers + 1
        if layer is not None and not -num_states <= as_whole_number(layer, "layer") < num_states:
            raise UsageError(f"layer is {layer}; it can be 0 to {num_states - 1}, or -1 for the last")
        ids = np.array(self._prompt_ids(one_prompt(text, "text"), "text"), np.int64)
        layers = range(num_states) if layer is None else [layer % num_states]
        with self._turns.take():
            states = self.engine.read_states(ids, layers)
        return states if layer is None else states[0]

    def trace(self, text: Prompt, *, num_likeliest: int = 3) -> Trace:
        """The inside of one pass over `text`: attention of all heads, logit lens of all layers, norms, roles of heads.

        It runs on the PyTorch module: a generator on the CPU engine loads it at the first call, in float32. A text has
        at most 256 tokens. `num_likeliest` tokens of each place of the lens are kept. Raises InputError for a text that
        is empty or too long, and ResourceError if module and trace do not fit into memory.

        >>> trace = tinyllm.load().trace("The cat saw a dog. The cat")
        >>> trace.attention.shape
        (5, 4, 9, 9)
        """
        if as_whole_number(num_likeliest, "num_likeliest") < 1:
            raise ConfigError(f"num_likeliest is {num_likeliest}; at least 1 is needed", parameter="num_likeliest")
        only = one_prompt(text, "text")
        ids = self._prompt_ids(only, "text")
        if len(ids) > MOST_TOKENS:
            raise InputError(f"the text has {len(ids)} tokens; a trace takes at most {MOST_TOKENS}, so shorten it")
        return trace_ids(self._opened_module(), self.tokenizer, self._prompt_text(only), ids, num_likeliest)

    def embed(self, text: str | list[str] | tuple[str, ...], *, normalized: bool = False) -> States:
        """A vector (D,) for a text, (n, D) for n texts: the mean of the last hidden states over the text's tokens.

        BOS is read and not counted. Long texts are read in windows, as by `score`. `normalized` divides each vector by
        its length, so that a dot product is a cosine. Errors are those of `score`.

        >>> kite, toy, bread = tinyllm.load().embed(["a red kite", "a blue kite", "He ate bread."], normalized=True)
        >>> bool(kite @ toy > kite @ bread)
        True
        """
        texts = _texts(text)
        ids = [np.array(self._text_ids(each), np.int64) for each in texts]
        vectors = np.empty((len(texts), self.config.hidden_size), np.float32)
        with self._turns.take():
            for vector, row in zip(vectors, ids, strict=True):
                vector[:] = self._mean_state(row)
        if normalized:
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors[0] if isinstance(text, str) else vectors

    def _opened_module(self) -> "Transformer":
        """The PyTorch module, loaded once. Raises ResourceError if it does not fit, UsageError if there is none."""
        with self._opening:
            if self._module is None:
                if self._open_module is None:
                    raise UsageError("this generator has no PyTorch module to look into; load the model with load")
                with shortages_named():
                    self._module = self._open_module()
            return self._module

    def _mean_state(self, ids: Tokens) -> States:
        """The mean (D,) of the last hidden states of `ids`, without those of a first BOS."""
        begin = int(ids[0] == self.tokenizer.bos_id and self.tokenizer.begins_with_bos)
        total = np.zeros(self.config.hidden_size)
        for start, first, end in windows(len(ids), self.engine.context_length):
            (states,) = self.engine.read_states(ids[start:end], [self.config.num_layers])
            total += states[max(first, begin) - start :].sum(axis=0, dtype=np.float64)
        mean: States = (total / (len(ids) - begin)).astype(np.float32)
        return mean

    def _batch(
        self, prompts: Sequence[Prompt], num_samples: int, config: SamplingConfig | None, settings: dict[str, Any]
    ) -> Batch:
        if as_whole_number(num_samples, "num_samples") < 1:
            raise ConfigError(f"num_samples is {num_samples}; at least 1 is needed", parameter="num_samples")
        if config is not None and not isinstance(config, SamplingConfig):
            raise wrong_type("sampling", config, "a SamplingConfig, or its fields by name")
        merged = sampling_config(**{**(config.model_dump() if config else {}), **settings})
        check_biases(merged, self.tokenizer.vocab_size)
        ids = [self._prompt_ids(prompt) for prompt in prompts]
        self._check_memory(num_samples, len(ids), max(map(len, ids)) + merged.max_new_tokens)
        return Batch(self.engine, self.tokenizer, ids, num_samples, merged)

    def _check_memory(self, num_samples: int, num_prompts: int, num_tokens: int) -> None:
        """Raises ResourceError if the samples, of at most `num_tokens` tokens, do not fit into memory.

        Called before any allocation.
        """
        num_positions = min(num_tokens, self.engine.context_length)
        each = f" of each of {num_prompts} prompts" if num_prompts > 1 else ""
        what = f"num_samples {num_samples}{each} with a context of {self.engine.context_length} tokens"
        num_samples *= num_prompts
        needed = self.engine.missing_bytes(num_samples, num_positions)
        sample_bytes = self.tokenizer.vocab_size + SAMPLE_BYTES + num_positions * TOKEN_BYTES
        advice, name = "use fewer samples, or call again for more", "num_samples"
        check_memory(what, needed, advice, self.engine.available_bytes(), parameter=name)
        check_memory(what, num_samples * sample_bytes, advice, parameter=name)

    def _prompt_text(self, prompt: Prompt) -> str:
        return prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt)

    def _text_ids(self, text: str) -> list[int]:
        """The ids of a text, with BOS if the model expects it. Raises InputError if it has no token besides."""
        if not self.tokenizer.encode(text):
            raise InputError("the text has no token; give some text")
        return self.tokenizer.encode(text, bos=self.tokenizer.begins_with_bos)

    def _prompt_ids(self, prompt: Prompt, name: str = "prompt") -> list[int]:
        """The ids of a text, or the checked token ids themselves; `name` is the caller's parameter.

        An empty text begins from the token before a text: BOS, or one that ends texts for models that expect no BOS.
        """
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt, bos=self.tokenizer.begins_with_bos) or first_tokens(self.tokenizer)
        else:
            ids = [self.tokenizer.check_id(id) for id in prompt]
            if not ids:
                raise InputError(f"the {name} has no token id; give at least one, such as BOS")
        if not ids:
            raise InputError(f"the {name} is empty, and this model has no BOS to begin with; give some text")
        if len(ids) > self.engine.context_length:
            raise InputError(
                f"the {name} has {len(ids)} tokens, but the model's context is {self.engine.context_length}; shorten it"
            )
        return ids


def _texts(text: object) -> list[str]:
    """One text, or each of several. Raises ConfigError for anything else."""
    if isinstance(text, str):
        return [text]
    if not isinstance(text, list | tuple):
        raise wrong_type("text", text, "a text, or a list of texts")
    return as_texts(text, "text")


def sampling_config(**settings: Any) -> SamplingConfig:
    """A `SamplingConfig` of `settings`. Raises ConfigError naming the first that is unknown or out of range."""
    try:
        return SamplingConfig(**settings)
    except ValidationError as error:
        raise wrong_setting(error, known=SamplingConfig.model_fields) from None
