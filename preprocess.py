"""Turn the corpus into shards of token ids: `python preprocess.py --help`. All logic is in `tinyllm.course`."""

from typing import Any

from tinyllm import course

__all__ = ["PretokDataset", "Task", "pretokenize", "process_shard"]  # noqa: F822 (given by __getattr__)


def __getattr__(name: str) -> Any:
    """The document's names, loaded on first use: helper processes import this file too."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(course, name)


if __name__ == "__main__":
    from tinyllm.course.tiny_llm import preprocess

    preprocess()
