"""The display of `tinyllm fit`: the plan as a table with its reasons, before the run shows its own progress."""

from rich.console import Console
from rich.table import Table

from tinyllm.cli.console import note
from tinyllm.planning.plan import Plan
from tinyllm.planning.reasons import explain, warnings
from tinyllm.planning.reporter import FitReporter
from tinyllm.planning.survey import Survey


class FitDisplay(FitReporter):
    """Prints the plan to standard output and lines to stderr."""

    def note(self, message: str) -> None:
        """Prints one line."""
        note(message)

    def planned(self, plan: Plan, survey: Survey) -> None:
        """Prints the table of the plan, and what limits its result."""
        table = Table(title="the plan", title_justify="left", show_header=False)
        for row in explain(plan, survey):
            table.add_row(*row)
        Console(highlight=False).print(table)
        for line in warnings(plan, survey):
            note(line)
