"""The `tinyllm` command: parse, call a stage, print. No stage's logic lives here."""

from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Runs the command. Its modules load only then: helper processes import the script that calls this, too."""
    from tinyllm.cli.app import main as run

    run()
