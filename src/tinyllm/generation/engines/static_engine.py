"""The engine for CUDA: the PyTorch engine, with steps of fixed shape that are replayed as CUDA graphs.

A small model's step is dozens of short kernels, and starting them takes longer than running them. A graph starts all
of them in one call. One step reads a token a slot, runs the model on the static cache and chooses the next tokens.
The host gets these and their log-probabilities. On another device the same step runs without a graph.

Prompts, forks, windows that slide, scores and the server's scheduler use the plain engine's passes (`read`), whose
logits go to the host.

Shapes: B slots of one call, R rows of a step, S keys that a step sees, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tinyllm.config import SamplingConfig
from tinyllm.generation import sampling
from tinyllm.generation.device_sampling import Rules
from tinyllm.generation.engines import arguments
from tinyllm.generation.engines.protocol import Doubles, Mask, Tokens
from tinyllm.generation.engines.torch_engine import TorchEngine
from tinyllm.model.kv_cache import KVCache, StaticCache

if TYPE_CHECKING:
    from tinyllm.model.transformer import Transformer

LEAST_KEYS = 128
"""Keys of the shortest step: shorter ones are not faster."""
MOST_STEPS = 16
"""Steps that are kept, each for one number of rows, of keys, and one set of rules."""
SCRATCH_BYTES = 64
"""Bytes that sampling needs for a logit: running sums in float64, a sorted copy, masks."""
GraphPool = Any
"""The memory that the CUDA graphs of an engine share: no tensor in it is used after the graph that made it."""
NEUTRAL = {"seed": 0, "stop": (), "max_new_tokens": 1}
"""The settings that a choice does not depend on."""


class Step:
    """One token for each of the first R rows of a cache: the model's pass and the choice of the next tokens."""

    def __init__(
        self, model: "Transformer", cache: KVCache, num_rows: int, num_keys: int, rules: Rules, pool: GraphPool | None
    ) -> None:
        """`pool` is the memory of the CUDA graph; None runs without a graph."""
        weight = model.output_weight
        self._model, self._cache, self._num_keys, self.rules = model, cache, num_keys, rules
        self.inputs = torch.zeros(3, num_rows, dtype=torch.float64, device=weight.device)
        """For each row the token, its position, and the uniform number of the choice after it."""
        # Passes before the first call write to the spare position, which belongs to no text.
        self.inputs[1] = model.config.context_length
        self.outputs = torch.zeros_like(self.inputs)
        """For each row the next token, its log-probability, and whether all logits are finite."""
        shape = num_rows, model.config.vocab_size
        self.seen = torch.zeros(shape, dtype=torch.bool, device=weight.device) if rules.uses_seen else None
        self.counts = torch.zeros(shape, dtype=torch.int32, device=weight.device) if rules.uses_counts else None
        self.run: Callable[[], None] = self._compute
        if pool is not None:
            with torch.cuda.device(weight.device):
                self.run = captured(self._compute, pool)

    def _compute(self) -> None:
        """Fills `outputs` from `inputs`."""
        tokens, positions = self.inputs[0].long(), self.inputs[1].long()
        logits = self._logits(tokens, positions)
        chosen, log_probabilities = self.rules.choose(logits, self.seen, self.counts, self.inputs[2])
        is_finite = logits.isfinite().all(-1)
        self.outputs.copy_(torch.stack((chosen.double(), log_probabilities, is_finite.double())))

    def _logits(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits (R, V) float32 after `tokens` (R,) at `positions` (R,)."""
        decoder = self._model.model
        cache = StaticCache(self._cache, positions, self._num_keys)
        cos, sin = decoder.rotary_of(0, decoder.context_length)
        # The spare position has no angles.
        angles = positions.clamp(max=decoder.context_length - 1)
        cos, sin = cos[angles][:, None, None], sin[angles][:, None, None]
        x = decoder.embed_tokens(tokens[:, None])
        for block in decoder.layers:
            x = block(x, cos, sin, cache)
        return self._model.project(decoder.norm(x)[:, 0]).float()


class StaticEngine(TorchEngine):
    """A `TorchEngine` that reads and chooses in one call, on the device."""

    _num_spare = 1

    def __init__(self, model: "Transformer") -> None:
        super().__init__(model)
        self._steps: dict[tuple[int, int, SamplingConfig], Step] = {}
        self._pool: GraphPool | None = None

    def missing_bytes(self, num_slots: int, num_positions: int) -> int:
        """As that of `TorchEngine`, and the memory of sampling."""
        return super().missing_bytes(num_slots, num_positions) + num_slots * SCRATCH_BYTES * self.vocab_size

    @torch.inference_mode()
    def read_and_choose(
        self,
        slots: Sequence[int],
        tokens: Tokens,
        seen: Mask,
        uniforms: Doubles,
        generated: Sequence[Sequence[int]],
        config: SamplingConfig,
    ) -> tuple[Tokens, Doubles]:
        """Appends `tokens` (B,) to `slots`; returns the token after each and its log-probability, (B,) each.

        Raises as `read` and `choose`.
        """
        starts = self._table.starts(slots, np.ones(len(slots), np.int64))
        arguments.check_texts(tokens[:, None], self.vocab_size)
        step = self._step(slots, int(starts.max()) + 1, config)
        num_rows = step.inputs.shape[1]
        # A row that takes no part writes after its last token.
        inputs = np.zeros((3, num_rows))
        inputs[1] = self._table.ends(num_rows)
        inputs[0, list(slots)], inputs[2, list(slots)] = tokens, uniforms
        step.inputs.copy_(torch.from_numpy(inputs))
        self._set_history(step, slots, seen, generated)
        step.run()
        outputs = step.outputs.cpu().numpy()
        self._table.advance(slots, 1)
        # Rows that take no part write keys too, so those count here.
        self._clears_slots |= not outputs[2].all()
        chosen, log_probabilities, is_finite = outputs[:, list(slots)]
        if not is_finite.all():
            raise sampling.not_finite()
        return chosen.astype(np.int64), log_probabilities

    def _set_history(self, step: Step, slots: Sequence[int], seen: Mask, generated: Sequence[Sequence[int]]) -> None:
        """Copies to the device what the penalties depend on; without penalties nothing is copied."""
        rows = list(slots)
        if step.seen is not None:
            step.seen[rows] = torch.from_numpy(seen).to(step.seen.device)
        if step.counts is not None:
            counts = np.stack([np.bincount(text, minlength=self.vocab_size) for text in generated])
            step.counts[rows] = torch.from_numpy(counts.astype(np.int32)).to(step.counts.device)

    def _step(self, slots: Sequence[int], num_tokens: int, config: SamplingConfig) -> Step:
        """The step for `slots` whose longest text has `num_tokens` tokens after it, captured at its first use."""
        num_rows = min(power_of_two(max(slots) + 1), self._table.num_slots)
        num_keys = min(max(LEAST_KEYS, power_of_two(num_tokens)), self.context_length)
        key = num_rows, num_keys, config.model_copy(update=NEUTRAL)
        step = self._steps.pop(key, None)
        if step is None:
            device = self._model.output_weight.device
            if self._pool is None and device.type == "cuda":
                self._pool = torch.cuda.graph_pool_handle()
            rules = Rules(config, self.vocab_size, device)
            step = Step(self._model, self._held_cache(), num_rows, num_keys, rules, self._pool)
        self._steps[key] = step  # the step used last comes last
        while len(self._steps) > MOST_STEPS:
            del self._steps[next(iter(self._steps))]
        return step

    def _open(self, num_slots: int, length: int) -> list[int]:
        if self._table.num_missing(num_slots):
            # They hold the old cache; a pool without graphs cannot be used again.
            self._steps, self._pool = {}, None
        return super()._open(num_slots, length)


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


def captured(compute: Callable[[], None], pool: GraphPool) -> Callable[[], None]:
    """`compute` as a CUDA graph with memory of `pool`: a call replays its kernels, on the same memory."""
    # Libraries allocate at their first call, which a capture does not allow; a side stream is what PyTorch asks for.
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may allocate meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        compute()
    return graph.replay
