"""Four layers become one config, and every wrong name gets its line."""

import tomllib
from pathlib import Path

import pytest

from tinyllm.config import Config
from tinyllm.errors import ConfigError
from tinyllm.recipes import read_recipe, recipe_names
from tinyllm.settings import build_config, read_toml, to_toml

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
        ({"training": {"batch_size": "many"}}, "training.batch_size is many; it should be a valid integer"),
        ({"training": {"batch_size": 0}}, "training.batch_size is 0; it should be greater than 0"),
        ({"model": {"num_heads": 7}}, "model: hidden_size 288 is not divisible by num_heads 7"),
    ],
)
def test_errors_name_the_key_and_what_to_do(layer: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config([VOCABULARY, ("f.toml", layer)])


def test_a_broken_toml_file_is_named_with_its_place(tmp_path: Path) -> None:
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
