"""The next token of texts that share their settings: logits are adjusted if a setting asks for it; the engine chooses.

Shapes: B texts, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np

from tinyllm.config import SamplingConfig
from tinyllm.generation import sampling
from tinyllm.generation.engines.protocol import Doubles, Engine, Logits, Mask, Tokens


class TokenChoice:
    """Chooses tokens by one set of settings; `seed`, `stop` and `max_new_tokens` have no effect here."""

    def __init__(self, engine: Engine, config: SamplingConfig) -> None:
        self.config = config
        self.uses_seen = config.repetition_penalty != 1
        """Whether `choose` depends on the tokens that occurred."""
        self._engine = engine
        self._adjusts = sampling.has_adjustments(config)
        self._without_penalty = config.model_copy(update={"repetition_penalty": 1.0})

    def choose(
        self, logits: Logits, seen: Mask, uniforms: Doubles, generated: Sequence[Sequence[int]]
    ) -> tuple[Tokens, Doubles]:
        """The next token of each row of `logits` (B, V) and its log-probability under the model alone, (B,) each.

        `seen` (B, V), `uniforms` (B,) and `generated` are those of `sampling.choose` and `sampling.adjust`. Raises
        FormatError for logits that are not finite.
        """
        if not self._adjusts:
            return self._engine.choose(logits, seen, uniforms, self.config)
        if not np.isfinite(logits).all():
            raise sampling.not_finite()
        adjusted = sampling.adjust(logits, seen, generated, self.config)
        tokens, _ = self._engine.choose(adjusted, seen, uniforms, self._without_penalty)
        return tokens, sampling.log_probability(logits, tokens)
