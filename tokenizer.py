"""The tutorial's `Tokenizer`, for `from tokenizer import Tokenizer`. All logic is in `tinyllm.course`."""

from tinyllm.course import Tokenizer

__all__ = ["Tokenizer"]
