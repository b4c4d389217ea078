"""The prompts that a caller gives: one text, the token ids of one text, or a list of these. Types are checked here.

Token ids are not compared with a vocabulary, and texts are not encoded; the generator does that.
"""

import operator
from collections.abc import Iterable, Sequence

import numpy as np

from tinyllm.arguments import shown, wrong_type
from tinyllm.errors import ConfigError

Prompt = str | Sequence[int]
"""A text, or its token ids."""


def one_prompt(value: object, name: str = "prompt") -> Prompt:
    """The only prompt in the parameter `name`. Raises ConfigError for several, and as `read_prompts`."""
    prompts = read_prompts(value, name)
    if len(prompts) > 1:
        raise ConfigError(f"{name} is a list of {len(prompts)} texts; give one", parameter=name)
    return prompts[0]


def read_prompts(value: object, name: str = "prompt") -> list[Prompt]:
    """The prompts in the parameter `name`: a text, token ids, or a list of these.

    Raises ConfigError for anything else, and names the first wrong item.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise wrong_type(name, value, "a text, or a list of token ids")
    items = list(value)
    if not any(isinstance(item, str | list | tuple | np.ndarray) for item in items):
        return [_whole_numbers(items, name, "a token id is a whole number")]
    rule = "a list of several has texts or lists of token ids alone"
    return [
        item if isinstance(item, str) else _whole_numbers(item, f"{name}[{place}]", rule)
        for place, item in enumerate(items)
    ]


def _whole_numbers(items: object, name: str, rule: str) -> list[int]:
    """The token ids in `items`, which messages call `name`. Raises ConfigError with `rule` for anything else."""
    if isinstance(items, bytes) or not isinstance(items, Iterable):
        raise ConfigError(f"{name} is {shown(items)}; {rule}", parameter=name)
    numbers = []
    for place, item in enumerate(items):
        try:
            numbers.append(operator.index(item))
        except TypeError:
            raise ConfigError(f"{name}[{place}] is {shown(item)}; {rule}", parameter=name) from None
    return numbers
