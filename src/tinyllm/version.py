"""The version of the package: one line that everything else reads."""

__version__ = "0.1.0"
