"""Builds a `Config` from four layers, defaults < recipe < TOML file < flags, and writes it as TOML.

For a resumed run, RUN/config.toml replaces the recipe. Every wrong key or value gives one line that names it, the
allowed values, and the nearest valid name.
"""

import difflib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tinyllm.addresses import opened_address
from tinyllm.config import Config, wrong_setting
from tinyllm.config.recipes import read_recipe
from tinyllm.errors import ConfigError, InputError
from tinyllm.progress import SILENT, Note
from tinyllm.text_input import decode, read_file

Layer = Mapping[str, Mapping[str, Any]]
DEFAULT_RECIPE = "seed"
SESSION_SETTINGS = {"max_minutes", "eval_only"}
"""Fields of `TrainingConfig` that apply to one session of a run; RUN/config.toml omits them."""
RENAMED = {("training", "eval_iters"): "eval_batches"}
"""Section and old key -> new key, for files and flags of older versions."""


def build_run_config(
    vocab_size: int,
    run: Path,
    layers: Sequence[tuple[str, Layer]],
    *,
    recipe: str | None = None,
    resume: bool = False,
    note: Note = SILENT.note,
    shape_of: Callable[[str], Mapping[str, Any]] | None = None,
) -> tuple[Config, bool]:
    """The config of a training run in `run`, and whether it resumes: by `resume`, or by init_from "resume".

    Layers, each overriding the one before: the config.toml of a resumed run, `recipe`, the shape of the model that
    init_from names, `layers`. `shape_of` reads that shape. A new run without `recipe` uses the default recipe. `note`
    gets a line if config.toml is not used. Raises ConfigError for a wrong setting, UsageError for an unknown recipe,
    and the errors of `shape_of`.
    """
    named = [(origin, _without_resume(layer)) for origin, layer in layers]
    resume = resume or any(kept is not layer for (_, kept), (_, layer) in zip(named, layers, strict=True))
    own = _settings_to_resume(run / "config.toml", recipe, note) if resume else {}
    if recipe is None and not own:
        recipe = DEFAULT_RECIPE
        if resume:
            note(f"{run} has no settings of its own; it begins with those of the recipe {recipe}")
    base = (str(run / "config.toml"), own)
    source = _source_of_weights(layer for _, layer in named)
    if source is not None and shape_of is not None and not resume:
        named = [(source, {"model": shape_of(source)}), *named]
    return config_for_shards(vocab_size, named, recipe=recipe, base=base, note=note), resume


def config_for_shards(
    vocab_size: int,
    layers: Iterable[tuple[str, Layer]],
    *,
    recipe: str | None = None,
    base: tuple[str, Layer] = ("", {}),
    note: Note = SILENT.note,
) -> Config:
    """The config of a run on shards whose tokenizer has `vocab_size` tokens: defaults < `base` < `recipe` < `layers`.

    Raises ConfigError for a wrong setting, UsageError for an unknown recipe.
    """
    settings = {} if recipe is None else read_recipe(recipe)
    shards = ("shards", {"model": {"vocab_size": vocab_size}})
    return build_config([shards, base, (f"recipe {recipe}", settings), *layers], note)


def file_layer(path: Path | None) -> tuple[str, Layer]:
    """The layer of the TOML file `path`, an empty one for None. Raises ConfigError as `read_toml` does."""
    return str(path), {} if path is None else read_toml(path)


def build_config(layers: Iterable[tuple[str, Layer]], note: Note = SILENT.note) -> Config:
    """The config of `layers`, pairs of an origin for errors and a layer; later layers win. Raises ConfigError.

    A key of an older version is read; `note` gets one line with its new name.
    """
    merged: dict[str, dict[str, Any]] = {}
    for origin, layer in layers:
        for section, values in layer.items():
            if not isinstance(values, Mapping):
                raise ConfigError(f"{_place(origin)}{_describe_value(section)}")
            values = _with_new_names(origin, section, values, note)
            _check_names(origin, section, values)
            merged.setdefault(section, {}).update(values)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        # Without its parameter: the value may come from a file or a recipe, where it has no flag.
        raise ConfigError(wrong_setting(error).message) from None


def _with_new_names(origin: str, section: str, values: Mapping[str, Any], note: Note) -> dict[str, Any]:
    """`values` with `_` in place of `-` in each key, and with the new name of each key in `RENAMED`."""
    found = {}
    for key, value in values.items():
        old = key.replace("-", "_")
        new = RENAMED.get((section, old), old)
        if new != old:
            note(f"{_place(origin)}{section}.{old} is named {section}.{new}; the old name is still read")
        found[new] = value
    return found


def _without_resume(layer: Layer) -> Layer:
    """`layer` without init_from "resume": it requests a resume and is not a source of weights."""
    training = layer.get("training")
    if not isinstance(training, Mapping):
        return layer
    kept = {key: value for key, value in training.items() if (key.replace("-", "_"), value) != ("init_from", "resume")}
    return layer if len(kept) == len(training) else {**layer, "training": kept}


def _source_of_weights(layers: Iterable[Layer]) -> str | None:
    """The model that init_from names in the last of `layers` that has it; None if the weights are new."""
    found = "scratch"
    for layer in layers:
        training = layer.get("training")
        if isinstance(training, Mapping):
            found = next((value for key, value in training.items() if key.replace("-", "_") == "init_from"), found)
    return found if isinstance(found, str) and found not in ("scratch", "resume") else None


def _settings_to_resume(path: Path, recipe: str | None, note: Note) -> dict[str, Any]:
    """The settings in a run's config.toml. Raises ConfigError if they cannot be read and no recipe replaces them."""
    try:
        return read_own_settings(path)
    except ConfigError as error:
        if recipe is None:
            raise ConfigError(str(error), hint="mend it, or name the run's `recipe`") from None
        note(f"the run's own settings are not used: {error}")
        return {}


def read_own_settings(path: Path) -> dict[str, Any]:
    """The settings in a run's config.toml, as a layer; empty if there is no such file. Raises ConfigError.

    vocab_size is dropped: it comes from the shards. Tiled attention becomes auto, because not every machine supports
    it; the checkpoint records the choice for a machine that does.
    """
    if not path.exists():
        return {}
    own = read_toml(path)
    config_for_shards(1, [(str(path), own)])
    own.get("model", {}).pop("vocab_size", None)
    training = own.get("training", {})
    for name in SESSION_SETTINGS:
        training.pop(name, None)
    if training.get("attention") == "tiled":
        training.update(attention="auto", compile="auto")
    return own


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, also at an address.

    Raises ConfigError if it is missing or invalid, with the line of a syntax error.
    """
    try:
        return tomllib.loads(read_file(path) if opened_address(path) else decode(path.read_bytes(), str(path)))
    except FileNotFoundError:
        raise ConfigError(f"config {path} does not exist", parameter="config") from None
    except InputError as error:
        raise ConfigError(str(error)) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def to_toml(config: Config) -> str:
    """`config` as TOML: every field but `SESSION_SETTINGS`."""
    lines = []
    for section, values in config.model_dump(exclude={"training": SESSION_SETTINGS}).items():
        lines.append(f"[{section}]")
        # Strings, numbers and booleans of TOML equal those of JSON, except for the delete character.
        lines += [
            f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
            for key, value in values.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _check_names(origin: str, section: str, values: Mapping[str, Any]) -> None:
    if section not in Config.model_fields:
        shown = f"[{section}]" if origin else section
        raise ConfigError(_unknown(origin, f"section {shown}", section, Config.model_fields))
    known = _settings_of(section)
    for key in values:
        if key not in known:
            raise ConfigError(_unknown(origin, f"key {section}.{key}", key, known, f"{section}."))


def _unknown(origin: str, what: str, name: str, known: Iterable[str], prefix: str = "") -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    advice = f"did you mean {prefix}{nearest[0]}?" if nearest else f"known are {prefix}{', '.join(sorted(known))}"
    return f"{_place(origin)}unknown {what}; {advice}"


def _place(origin: str) -> str:
    """The beginning of a message about the layer `origin`; empty for the keywords of a call, which need no place."""
    return f"{origin}: " if origin else ""


def _describe_value(name: str) -> str:
    """The message for `name` with a value where a section should be."""
    if name in Config.model_fields:
        return f"{name} is a section; give it settings by name, not one value"
    homes = [section for section in Config.model_fields if name.replace("-", "_") in _settings_of(section)]
    advice = f"it is a setting of {' and of '.join(homes)}" if homes else f"there are {', '.join(Config.model_fields)}"
    return f"{name} stands outside a section; {advice}"


def _settings_of(section: str) -> Mapping[str, object]:
    """The settings of a section of `Config`, by name."""
    kind = Config.model_fields[section].annotation
    assert isinstance(kind, type)
    assert issubclass(kind, BaseModel)
    return kind.model_fields
