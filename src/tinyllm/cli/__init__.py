"""The `tinyllm` command: parse, call a stage, print. No stage's logic lives here."""

from tinyllm.cli.app import main

__all__ = ["main"]
