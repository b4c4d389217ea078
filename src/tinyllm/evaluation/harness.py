"""The adapter for lm-evaluation-harness (EleutherAI): its tasks on any model that `tinyllm.load` reads.

    import lm_eval
    from tinyllm.evaluation.harness import HarnessModel

    lm_eval.simple_evaluate(HarnessModel("runs/mine"), tasks=["blimp", "lambada_openai"])

Needs the package `lm-eval` (the extra `eval`). Encoding, prefixes and windows follow lm-eval's backend for
transformers. That backend puts no BOS before a context of tinyllm's model directories. So its figures are those of
`add_bos_token=False`; the default follows the model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from tinyllm.config import SamplingConfig
from tinyllm.errors import ConfigError, InputError
from tinyllm.evaluation.likelihood import Scorer
from tinyllm.generation.generator import sampling_config
from tinyllm.generation.scoring import first_tokens
from tinyllm.loading import load
from tinyllm.progress import SILENT, Reporter

DEFAULT_TOKENS = 256
"""lm-eval's limit of a generated text."""
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""lm-eval's names for the limit of a generated text, the first in force."""


@register_model("tinyllm")
class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A model for `lm_eval.simple_evaluate`, registered as `tinyllm`."""

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        tokenizer: str | Path | None = None,
        device: str | None = None,
        add_bos_token: bool | None = None,
        reporter: Reporter = SILENT,
        batch_size: object = None,  # noqa: ARG002 (lm-eval passes it; the engine chooses its own)
        max_batch_size: object = None,  # noqa: ARG002
    ) -> None:
        """Loads the model at `path`, by default the bundled one; raises the errors of `tinyllm.load`.

        `add_bos_token` puts BOS before every text that has none, as in lm-eval's backend; by default where the model
        expects it.

        Raises InputError for a model with neither BOS nor a token that ends texts: lm-eval scores after one of them.
        """
        super().__init__()
        self.generator = load(path, tokenizer=tokenizer, device=device or "auto", note=reporter.note)
        self._reporter = reporter
        self._adds_bos = self.generator.tokenizer.begins_with_bos if add_bos_token is None else add_bos_token
        if not first_tokens(self.generator.tokenizer):
            raise InputError(f"{self.generator.path} has no token that begins or ends a text, which lm-eval needs")

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        codec = self.generator.tokenizer
        return codec.eos_id if codec.eos_id is not None else self.prefix_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has no context."""
        codec = self.generator.tokenizer
        return codec.bos_id if codec.bos_id is not None else first_tokens(codec)[0]

    @property
    def max_length(self) -> int:
        """The context in tokens."""
        return self.generator.config.context_length

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's fingerprint, which names it in lm-eval's caches."""
        return self.generator.tokenizer.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_options: object) -> list[int]:
        """The ids of `string`; BOS precedes them as `add_special_tokens` says, by default as the constructor does."""
        codec = self.generator.tokenizer
        with_bos = self._adds_bos if add_special_tokens is None else add_special_tokens
        return codec.encode(string, bos=with_bos and codec.bos_id is not None)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]], **_options: object
    ) -> list[tuple[float, bool]]:
        """The log-probability of each continuation after its context, and whether it is greedy."""
        scorer = Scorer(self.generator, self._reporter, "lm-eval")
        scores = scorer.score_rows(
            [context + continuation for _, context, continuation in requests],
            [len(context) for _, context, _ in requests],
        )
        answers = [(float(logs.sum()), bool(likeliest.all())) for logs, likeliest in scores]
        for (text, _, _), answer in zip(requests, answers, strict=True):
            if text is not None:
                self.cache_hook.add_partial("loglikelihood", text, answer)
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """The log-probability of each whole text, in lm-eval's windows: one token of context between two of them."""
        windows: list[list[tuple[None, list[int], list[int]]]] = []
        for (text,) in (request.args for request in requests):
            pairs = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            windows.append([(None, *make_disjoint_window(pair)) for pair in pairs])
        answers = iter(self._loglikelihood_tokens([window for each in windows for window in each]))
        totals = [sum(next(answers)[0] for _ in each) for each in windows]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """The continuation of each prompt, cut at its stop strings; greedy unless the task samples.

        A prompt too long for the context and the new tokens loses its beginning. Raises ConfigError for settings of
        generation that the model does not have.
        """
        texts = []
        for prompt, settings in (request.args for request in requests):
            config = _sampling(settings)
            room = self.max_length - config.max_new_tokens
            if room < 1:
                raise ConfigError(
                    f"max_gen_toks is {config.max_new_tokens}, but the context has {self.max_length} tokens; "
                    "set a smaller max_gen_toks in the task"
                )
            ids = (self.tok_encode(prompt) or [self.prefix_token_id])[-room:]
            (result,) = self.generator.generate(ids, sampling=config)
            texts.append(result.text)
            self.cache_hook.add_partial("generate_until", (prompt, settings), result.text)
        return texts


def _sampling(settings: Mapping[str, Any]) -> SamplingConfig:
    """The settings of one request of lm-eval. Raises ConfigError for one that is unknown."""
    rest = dict(settings)
    limits = [rest.pop(name, None) for name in _LIMITS]
    until = rest.pop("until", None) or []
    samples, temperature = rest.pop("do_sample", None), rest.pop("temperature", 0.0)
    rest.pop("num_beams", None)
    return sampling_config(
        max_new_tokens=next((limit for limit in limits if limit is not None), DEFAULT_TOKENS),
        stop=tuple(text for text in ([until] if isinstance(until, str) else until) if text),
        temperature=0.0 if samples is False else temperature,
        **rest,
    )
