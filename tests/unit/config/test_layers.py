"""Four layers give one config, and every wrong name gives one line."""

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyllm.config import Config, ModelConfig
from tinyllm.config.layers import build_config, build_run_config, read_toml, to_toml
from tinyllm.config.recipes import read_recipe, recipe_names
from tinyllm.errors import ConfigError
from tinyllm.model.hugging_face_config import from_hugging_face, to_hugging_face
from tinyllm.model.size import parameter_shapes

VOCABULARY = ("shards", {"model": {"vocab_size": 512}})


def test_later_layers_win_and_flags_are_text() -> None:
    config = build_config(
        [
            VOCABULARY,
            ("recipe seed", read_recipe("seed")),
            ("file", {"training": {"batch_size": 2, "seed": 1}}),
            ("flags", {"training": {"batch-size": "3"}, "schedule": {"peak": "1e-3"}}),
        ]
    )
    assert (config.training.batch_size, config.training.seed, config.schedule.peak) == (3, 1, 1e-3)
    assert config.model.num_kv_heads == 4


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_a_config_that_survives_its_own_toml(name: str) -> None:
    config = build_config([VOCABULARY, (name, read_recipe(name))])
    assert Config.model_validate(tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"model": {"hiden_size": 3}}, r"f.toml: unknown key model.hiden_size; did you mean model.hidden_size\?"),
        ({"modell": {"hidden_size": 3}}, r"f.toml: unknown section \[modell\]; did you mean model\?"),
        ({"training": {"zzz": 3}}, "unknown key training.zzz; known are training.accumulation_steps, align"),
        ({"seed": 3}, r"seed stands outside a section"),
        ({"model": 3}, r"f.toml: model is a section; give it settings by name"),
        ({"training": {"batch_size": "many"}}, "training.batch_size is many; it should be a valid integer"),
        (
            {"training": {"num_threads": 60_000}},
            "training.num_threads is 60000; it should be less than or equal to 1024",
        ),
        ({"training": {"batch_size": 0}}, "training.batch_size is 0; it should be greater than 0"),
        ({"model": {"num_heads": 7}}, "model: hidden_size 288 is not divisible by num_heads 7"),
    ],
)
def test_errors_name_the_key_and_what_to_do(layer: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config([VOCABULARY, ("f.toml", layer)])


WAYS: dict[str, tuple[str, Callable[[str, int], dict[str, Any]]]] = {
    "flag": ("flags", lambda key, value: {"model": {key: str(value)}}),
    "flag auto": ("flags", lambda key, value: {"model": {key: str(value or "auto")}}),
    "TOML": ("f.toml", lambda key, value: tomllib.loads(f"[model]\n{key} = {value}")),
    "TOML auto": ("f.toml", lambda key, value: tomllib.loads(f"[model]\n{key} = {json.dumps(value or 'auto')}")),
    "Python": ("sections", lambda key, value: {"model": {key: value}}),
    "Python None": ("sections", lambda key, value: {"model": {key: value or None}}),
}
"""Each source of settings: its name in errors, and its form of a field. 0 is the automatic value."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize(
    ("key", "value"),
    [("num_kv_heads", 0), ("intermediate_size", 0), ("hidden_size", 96), ("multiple_of", 24)],
)
def test_automatic_sizes_resolve_equally_from_every_source(name: str, way: str, key: str, value: int) -> None:
    """A value as text, TOML and Python gives the same config, with positive sizes, and loads again."""
    origin, write = WAYS[way]
    recipe = read_recipe(name)
    # A hidden_size of 96 is divisible by the heads of every recipe: 4, 6, 8 and 12.
    model = build_config([VOCABULARY, (name, recipe), (origin, write(key, value))]).model
    given = recipe["model"] | {key: value}
    assert model.num_kv_heads == (given.get("num_kv_heads") or given["num_heads"])
    multiple = given.get("multiple_of", 32)
    automatic = math.ceil(given["hidden_size"] * 8 // 3 / multiple) * multiple
    assert model.intermediate_size == (given.get("intermediate_size") or automatic)
    assert min(size for size in model.model_dump().values() if type(size) is int) > 0
    loaded = from_hugging_face(to_hugging_face(model, "float32"), "config.json")
    assert parameter_shapes(loaded) == parameter_shapes(model)


NO_SIZES = ["", "none", "many", "1.5", "1e3", "nan", "-1", -1, 1.5, True, False, [1], {"a": 1}, "x\ny", 10**30]


@pytest.mark.parametrize("value", NO_SIZES)
@pytest.mark.parametrize("key", [name for name, field in ModelConfig.model_fields.items() if field.annotation is int])
def test_an_invalid_size_gets_one_line(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config([VOCABULARY, ("recipe stories260k", read_recipe("stories260k")), ("f", {"model": {key: value}})])
    message = str(caught.value)
    assert message.startswith(f"model.{key}")
    assert message.isprintable()
    assert len(message) < 200
    if isinstance(value, bool):
        assert message == f"model.{key}: it is {str(value).lower()}; it should be a number"


@pytest.mark.parametrize("value", [0, "0", None])
@pytest.mark.parametrize("key", ["hidden_size", "num_heads", "num_layers", "multiple_of", "context_length"])
def test_zero_is_automatic_only_for_automatic_fields(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"model.{key} is (0|None); it should be"):
        build_config([VOCABULARY, ("recipe seed", read_recipe("seed")), ("sections", {"model": {key: value}})])


@pytest.mark.parametrize("value", ["0", "auto", None, 0])
def test_every_automatic_value_of_threads_is_accepted(value: object) -> None:
    config = build_config([VOCABULARY, ("sections", {"training": {"num_threads": value}})])
    assert config.training.num_threads == 0


@pytest.mark.parametrize("key", ["eval_iters", "eval-iters"])
def test_an_old_key_is_read_with_one_line(key: str, tmp_path: Path) -> None:
    lines: list[str] = []
    layers = [("old.toml", {"training": {key: 7}})]
    config, _ = build_run_config(512, tmp_path, layers, note=lines.append)
    assert config.training.eval_batches == 7
    assert lines == ["old.toml: training.eval_iters is named training.eval_batches; the old name is still read"]


def test_a_run_of_an_older_version_resumes_with_its_settings(tmp_path: Path) -> None:
    write_own_config(tmp_path / "run", training={"eval_batches": 9})
    lines: list[str] = []
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("eval_batches", "eval_iters"), encoding="utf-8")
    config, _ = build_run_config(512, tmp_path / "run", [], resume=True, note=lines.append)
    assert config.training.eval_batches == 9
    assert lines == [f"{path}: training.eval_iters is named training.eval_batches; the old name is still read"]


def write_own_config(run: Path, **sections: dict[str, object]) -> None:
    """Writes RUN/config.toml as the loop does, for the stories260k recipe with `sections` over it."""
    layers = [VOCABULARY, ("recipe", read_recipe("stories260k")), ("flags", sections)]
    run.mkdir(exist_ok=True)
    (run / "config.toml").write_text(to_toml(build_config(layers)), encoding="utf-8")


def test_a_resumed_run_has_its_own_settings_and_the_given_ones_over_them(tmp_path: Path) -> None:
    write_own_config(tmp_path / "run", model={"num_layers": 2}, training={"batch_size": 3, "max_minutes": 5})
    run, flags = tmp_path / "run", ("flags", {"schedule": {"num_steps": "60"}})
    config, goes_on = build_run_config(512, run, [flags], resume=True)
    assert goes_on
    assert (config.model.hidden_size, config.model.num_layers, config.training.batch_size) == (64, 2, 3)
    assert (config.schedule.num_steps, config.schedule.peak) == (60, 1e-3)
    assert config.training.max_minutes == 0
    named, _ = build_run_config(512, run, [], recipe="storybook", resume=True)
    assert (named.model.hidden_size, named.training.batch_size, named.schedule.num_steps) == (128, 8, 6000)
    anew, goes_on = build_run_config(512, run, [])
    assert not goes_on
    assert anew.model.hidden_size == read_recipe("seed")["model"]["hidden_size"]


@pytest.mark.parametrize("way", [{"init_from": "resume"}, {"init-from": "resume"}])
def test_init_from_resume_resumes_and_keeps_the_source_of_the_weights(way: dict[str, str], tmp_path: Path) -> None:
    write_own_config(tmp_path / "run", training={"init_from": "models/first"})
    config, goes_on = build_run_config(512, tmp_path / "run", [("flags", {"training": way})])
    assert goes_on
    assert config.training.init_from == "models/first"


def test_a_resumed_run_chooses_tiles_again_and_uses_the_vocabulary_of_the_shards(tmp_path: Path) -> None:
    write_own_config(
        tmp_path / "run", training={"attention": "tiled", "dtype": "bfloat16", "compile": "off", "eval_only": True}
    )
    config, _ = build_run_config(600, tmp_path / "run", [], resume=True)
    assert config.model.vocab_size == 600
    settings = config.training
    assert (settings.dtype, settings.attention, settings.compile) == ("bfloat16", "auto", "auto")
    assert not settings.eval_only


@pytest.mark.parametrize("content", ["[model", "[model]\nwide = 3\n", "[training]\nbatch_size = 0\n", "x = 1\n"])
def test_unreadable_settings_of_a_run_are_refused_or_replaced_by_a_recipe(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(content)
    notes: list[str] = []
    with pytest.raises(ConfigError, match="mend it, or name the run's `recipe`"):
        build_run_config(512, tmp_path, [], resume=True, note=notes.append)
    config, _ = build_run_config(512, tmp_path, [], recipe="seed", resume=True, note=notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("the run's own settings are not used: ")
    assert config.model.hidden_size == read_recipe("seed")["model"]["hidden_size"]


def test_settings_of_one_session_are_not_saved() -> None:
    config = build_config([VOCABULARY, ("flags", {"training": {"max_minutes": 0.2, "eval_only": True}})])
    assert not {"max_minutes", "eval_only"} & tomllib.loads(to_toml(config))["training"].keys()


@pytest.mark.parametrize("prompt", ["plain", 'say "no"\n\t\\', "\x00\x1f\x7f\x80", "Łódź 詩 😀", ""])
def test_every_prompt_survives_its_toml(prompt: str) -> None:
    config = build_config([VOCABULARY, ("flags", {"sample": {"prompt": prompt}})])
    assert Config.model_validate(tomllib.loads(to_toml(config))) == config


def test_text_that_utf8_cannot_encode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sample.prompt: it is not valid UTF-8"):
        build_config([VOCABULARY, ("flags", {"sample": {"prompt": "\udcff"}})])


def test_a_broken_toml_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[model\nx = 1\n")
    with pytest.raises(ConfigError, match=r"c.toml is not valid TOML: .*line 1"):
        read_toml(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match="does not exist"):
        read_toml(tmp_path / "none.toml")


def test_a_toml_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b'\xef\xbb\xbf[sample]\r\nprompt = """\r\nZo\xc3\xab\r\nsaw"""\r\n')
    assert read_toml(path) == {"sample": {"prompt": "Zoë\nsaw"}}
    path.write_bytes(b'[sample]\nprompt = "\xff"\n')
    with pytest.raises(ConfigError, match=r"c\.toml is not UTF-8 at line 2, byte 19 \(0xff"):
        read_toml(path)


def test_a_resumed_run_without_settings_names_the_recipe_it_gets(tmp_path: Path) -> None:
    notes: list[str] = []
    build_run_config(512, tmp_path, [], resume=True, note=notes.append)
    assert notes == [f"{tmp_path} has no settings of its own; it begins with those of the recipe seed"]
