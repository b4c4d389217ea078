"""Early stop: counts the evaluations since the lowest validation loss (Prechelt 1998).

The count belongs to the checkpoint, and leaves out the evaluations of stops. So a resumed run ends where an
uninterrupted one does.
"""

import math

from tinyllm.training.checkpoint import TrainingState
from tinyllm.training.objective import Evaluation


def count_evaluation(state: TrainingState, evaluation: Evaluation) -> None:
    """Counts an evaluation at the interval; a loss that is not finite is no lower one."""
    if math.isfinite(evaluation.criterion) and (state.lowest_loss is None or evaluation.criterion < state.lowest_loss):
        state.lowest_loss, state.worse_evaluations = evaluation.criterion, 0
    else:
        state.worse_evaluations += 1


def is_out_of_patience(state: TrainingState, patience: int) -> bool:
    """Whether the last `patience` evaluations had no lower loss; never with a patience of 0."""
    return bool(patience) and state.worse_evaluations >= patience
