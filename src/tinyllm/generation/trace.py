"""A look inside one pass of a model over a short text, and the roles that attention heads play in it.

The role of a head is the place that it looks at. Each place is defined by the tokens alone:

    previous      the token before this one
    beginning     the first token
    same          the last occurrence of this token
    after_same    the token after the last occurrence of this one: an induction head (Olsson et al. 2022)

The score of a role is the mean attention that a head gives to that place, over the tokens that have one. At a token
where two roles have one place, neither counts. A head has a role if the score is high in itself, and beside that
of a head that looks everywhere alike. A share of 1/4 is much in a text of 100 tokens, and nothing in one of four.

Shapes: T tokens, L layers, H heads of a layer, K likeliest tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from tinyllm import markup
from tinyllm.machine.memory import check_memory, shortages_named
from tinyllm.model.size import trace_bytes
from tinyllm.tokenizer.codec import Tokenizer

if TYPE_CHECKING:
    from tinyllm.model.transformer import Transformer

Role = Literal["previous", "beginning", "same", "after_same"]
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
ROLES: tuple[Role, ...] = get_args(Role)

MOST_TOKENS = 256
"""Longest text of a trace: attention grows with the square of the length."""
LEAST_SCORE = 0.3
"""Lowest score of a head with a role."""
LEAST_LIFT = 3.0
"""Lowest score of such a head / the score of a head that looks everywhere alike."""
LEAST_TOKENS = 3
"""Fewest tokens with a place that a score may rest on."""


@dataclass(frozen=True)
class HeadRole:
    """The role that a head plays in a text."""

    layer: int
    head: int
    role: Role
    score: float
    """Mean attention to the place of the role, from 0 to 1."""


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """The inside of one pass. Row l of `norms` and `lens` is the residual stream before block l, the last after all."""

    text: str
    token_ids: list[int]
    """All T tokens, with BOS where the model expects it."""
    pieces: list[str]
    """The piece of each token, such as `▁the`."""
    log_probabilities: list[float | None]
    """Log-probability of each token after the tokens before it, in nats; None for the first, which nothing predicts."""
    attention: Floats
    """Attention weights (L, H, T, T) of every query (third axis) to every key (last axis)."""
    norms: Floats
    """Euclidean length of the residual stream (L + 1, T)."""
    lens_ids: Ids
    """The K likeliest next tokens if the stream were that of the last block (L + 1, T, K), likeliest first."""
    lens_probabilities: Floats
    """Their probabilities (L + 1, T, K)."""
    roles: list[HeadRole]
    """The heads that play a role, in order of layers and heads; the others have no clear one in this text."""

    @property
    def loss(self) -> list[float | None]:
        """Nats of surprise at each token; None for the first."""
        return [None if nats is None else -nats for nats in self.log_probabilities]

    def __repr__(self) -> str:
        num_layers, num_heads = self.attention.shape[:2]
        shape = f"{num_layers} layers of {num_heads} heads"
        return f"<Trace {len(self.token_ids)} tokens, {shape}, {len(self.roles)} heads with a role>"

    def _repr_html_(self) -> str:
        shown = [piece.replace("▁", " ") for piece in self.pieces]
        found = [f"layer {each.layer} head {each.head}: {each.role} {each.score:.2f}" for each in self.roles]
        roles = ", ".join(found) or "no head has a clear role in this text"
        return markup.shaded_text(zip(shown, self.log_probabilities, strict=True), (roles,))


def trace_ids(model: "Transformer", tokenizer: Tokenizer, text: str, ids: Sequence[int], num_likeliest: int) -> Trace:
    """The trace of `ids`, at most `MOST_TOKENS`, which `text` was encoded to.

    Raises ResourceError if it does not fit into memory.
    """
    from tinyllm.model.trace import look_inside

    check_memory(f"a trace of {len(ids)} tokens", trace_bytes(model.config, len(ids)), "trace a shorter text")
    with shortages_named():
        inside = look_inside(model, np.array(ids, np.int64), min(num_likeliest, model.config.vocab_size))
    return Trace(
        text=text,
        token_ids=list(ids),
        pieces=[tokenizer.id_to_piece(id) for id in ids],
        log_probabilities=[None, *inside.log_probabilities.tolist()],
        attention=inside.attention,
        norms=inside.norms,
        lens_ids=inside.lens_ids,
        lens_probabilities=inside.lens_probabilities,
        roles=head_roles(inside.attention, ids),
    )


def head_roles(attention: Floats, ids: Sequence[int]) -> list[HeadRole]:
    """The role of each head with a clear one, from its `attention` (L, H, T, T) over `ids` (T,): the highest score.

    The role is clear if `LEAST_SCORE` and `LEAST_LIFT` are reached over at least `LEAST_TOKENS` tokens.
    """
    places = role_places(ids)
    scores = role_scores(attention, places)
    alike = np.tril(np.ones((1, 1, len(ids), len(ids)), np.float32))
    alike /= alike.sum(axis=-1, keepdims=True)
    clear = scores >= np.maximum(LEAST_SCORE, LEAST_LIFT * role_scores(alike, places))
    clear[(places >= 0).sum(axis=1) < LEAST_TOKENS] = False
    scores[~clear] = 0
    best = scores.argmax(axis=0)
    return [
        HeadRole(layer, head, ROLES[role], float(scores[role, layer, head]))
        for (layer, head), role in np.ndenumerate(best)
        if scores[role, layer, head]
    ]


def role_scores(attention: Floats, places: Ids) -> Floats:
    """The mean attention (4, L, H) of each head to the `places` (4, T) of each role; 0 for a role without a place."""
    scores = np.zeros((len(places), *attention.shape[:2]), np.float32)
    for score, row in zip(scores, places, strict=True):
        queries = np.flatnonzero(row >= 0)
        if len(queries):
            score[:] = attention[:, :, queries, row[queries]].mean(axis=-1)
    return scores


def role_places(ids: Sequence[int]) -> Ids:
    """The place (4, T) of each of `ROLES` for every token of `ids` (T,); -1 where it has none, or shares it."""
    places = np.full((len(ROLES), len(ids)), -1, np.int64)
    last: dict[int, int] = {}
    for query, id in enumerate(ids):
        if query:
            places[:2, query] = query - 1, 0
        if id in last:
            places[2:, query] = last[id], last[id] + 1
        last[id] = query
        _drop_shared(places[:, query], query)
    return places


def _drop_shared(column: Ids, query: int) -> None:
    """Replaces the places of one `query` (4,) that are equal, or the query itself, by -1."""
    shared = [place for place in column if (column == place).sum() > 1 or place == query]
    column[np.isin(column, shared)] = -1
