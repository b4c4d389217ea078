"""Seeds dropout: the activations that an update drops are a pure function of (seed, step, rank).

So a resumed run drops the same activations, and no two ranks share a mask.
"""

import numpy as np

from tinyllm.machine import ranks
from tinyllm.machine.device import seed_everything


def seed_dropout(seed: int, step: int) -> None:
    """Seeds the generators of this rank for the update after `step` updates of a run with `seed`."""
    seed_everything(dropout_seed(seed, step, ranks.rank()))


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """The generators' seed, 0 <= seed < 2**64. That of rank 0 does not depend on the number of ranks.

    The sum `seed + step + rank` would give a rank the masks of another rank's next step, so further ranks hash the
    three numbers.
    """
    if rank == 0:
        return seed + 1 + step
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
