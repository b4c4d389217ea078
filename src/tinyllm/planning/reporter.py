"""The events of `fit`: those of a training run, and the plan before it."""

from tinyllm.planning.plan import Plan
from tinyllm.planning.survey import Survey
from tinyllm.training.reporter import TrainingReporter


class FitReporter(TrainingReporter):
    """Receives the events of `fit` and ignores them."""

    def planned(self, plan: Plan, survey: Survey) -> None:
        """Called once the plan is made, before anything is written."""
