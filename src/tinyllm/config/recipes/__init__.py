"""Named recipes: TOML files beside this one, each a whole set of settings for one purpose."""

import tomllib
from importlib.resources import files
from typing import Any

from tinyllm.errors import UsageError


def recipe_names() -> list[str]:
    """The recipes that ship with tinyllm."""
    return sorted(item.name.removesuffix(".toml") for item in files(__name__).iterdir() if item.name.endswith(".toml"))


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe, by section. Raises UsageError for a name that is none."""
    if name not in recipe_names():
        raise UsageError(
            f"recipe {name} is not a recipe; choose one of {', '.join(recipe_names())}", parameter="recipe"
        )
    return tomllib.loads((files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))
