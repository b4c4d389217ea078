"""The `tinyllm` command: parses arguments, calls a stage, prints the result. Contains no logic of a stage."""

from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Runs the command. Imports its modules late, because worker processes import the calling script too."""
    from tinyllm.cli.app import main as run

    run()
