"""Wrong types in calls from Python: one line that names the parameter, and no flag of the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinyllm
from tinyllm.arguments import as_path, as_paths, shown
from tinyllm.errors import ConfigError, UsageError

WRONG_CALLS: list[tuple[Callable[..., object], dict[str, Any], str]] = [
    (tinyllm.generate, {"prompt": "a", "model": 3}, "model is 3; it should be a path"),
    (tinyllm.generate, {"prompt": 3}, "prompt is 3; it should be a text, or a list of token ids"),
    (tinyllm.load, {"path": b"a"}, "path is b'a'; it should be a path"),
    (tinyllm.load, {"tokenizer": 5}, "tokenizer is 5; it should be a path"),
    (tinyllm.load, {"device": 0}, "device is 0; it should be a text"),
    (tinyllm.load, {"weights": "int4"}, "weights is int4; it can be auto, fp32, bf16, int8"),
    (tinyllm.load, {"dtype": None}, "dtype is None; it can be float32, bfloat16, float16"),
    (tinyllm.evaluate, {"data": 3}, "data is 3; it should be a path"),
    (tinyllm.evaluate, {"text": 3}, "text is 3; it should be a path or a list of paths"),
    (tinyllm.evaluate, {"tasks": ["a", 3]}, "tasks[1] is 3; it should be a path"),
    (tinyllm.evaluate, {"num_samples": "3"}, "num_samples is '3'; it should be a whole number"),
    (tinyllm.evaluate, {"prompt": 3}, "prompt is 3; it should be a text"),
    (tinyllm.evaluate, {"reporter": print}, "reporter is <built-in function print>; it should be a tinyllm.Reporter"),
    (tinyllm.train_tokenizer, {"files": 3, "output": "o"}, "files is 3; it should be a path or a list of paths"),
    (tinyllm.train_tokenizer, {"files": "f", "output": None}, "output is None; it should be a path"),
    (
        tinyllm.train_tokenizer,
        {"files": "f", "output": "o", "vocab_size": 1.5},
        "vocab_size is 1.5; it should be a who",
    ),
    (
        tinyllm.train_tokenizer,
        {"files": "f", "output": "o", "special": "<|u|>"},
        "special is '<|u|>'; it should be a l",
    ),
    (tinyllm.prepare, {"files": "f", "tokenizer": 5, "output": "o"}, "tokenizer is 5; it should be a path"),
    (
        tinyllm.prepare,
        {"files": "f", "tokenizer": "t", "output": "o", "documents": "page"},
        "documents is page; it can be auto, file, line, blank-line, endoftext",
    ),
    (
        tinyllm.prepare,
        {"files": "f", "tokenizer": "t", "output": "o", "text_key": 1},
        "text_key is 1; it should be a te",
    ),
    (tinyllm.train, {"data": None, "out": "o"}, "data is None; it should be a path"),
    (tinyllm.train, {"data": "d", "out": 3}, "out is 3; it should be a path"),
    (tinyllm.fit, {"texts": 3, "out": "o"}, "texts is 3; it should be a path or a list of paths"),
    (tinyllm.fit, {"texts": "t", "out": "o", "minutes": "5"}, "minutes is '5'; it should be a number"),
    (tinyllm.fit, {"texts": "t", "out": "o", "minutes": 0}, "minutes is 0; it should be greater than 0"),
    (tinyllm.fit, {"texts": "t", "out": "o", "max_parameters": 1.5}, "max_parameters is 1.5; it should be a whole"),
    (tinyllm.fit, {"texts": "t", "out": "o", "tokenizer": 5}, "tokenizer is 5; it should be a path"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), WRONG_CALLS)
def test_wrong_type_names_its_parameter(
    function: Callable[..., object],
    arguments: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        function(**arguments)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.parameter in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("score", (3,), "text is 3; it should be a text, or a list of texts"),
        ("score", (["a", 3],), "text[1] is 3; it should be a text"),
        ("embed", (None,), "text is None; it should be a text, or a list of texts"),
        ("logits", (3,), "text is 3; it should be a text, or a list of token ids"),
        ("hidden_states", ("a", "last"), "layer is 'last'; it should be a whole number"),
        ("generate", ([1, None],), "prompt[1] is None; a token id is a whole number"),
    ],
)
def test_methods_of_a_model_name_it_too(
    method: str, arguments: tuple[Any, ...], message: str, make_model_dir: Callable[..., Path]
) -> None:
    model = tinyllm.load(make_model_dir(), device="cpu")
    with pytest.raises(ConfigError) as caught:
        getattr(model, method)(*arguments)
    assert str(caught.value).startswith(message)


def test_settings_of_sampling_are_a_config_or_names(make_model_dir: Callable[..., Path]) -> None:
    model = tinyllm.load(make_model_dir(), device="cpu")
    with pytest.raises(ConfigError, match=r"^sampling is 0\.8; it should be a SamplingConfig, or its fields by name$"):
        model.generate("a", sampling=0.8)  # type: ignore[arg-type]


def test_tokenizer_names_what_is_no_text_and_no_id(make_model_dir: Callable[..., Path]) -> None:
    tokenizer = tinyllm.Tokenizer.load(make_model_dir())
    for call, message in (
        (lambda: tokenizer.encode(5), "text is 5; it should be a text"),  # type: ignore[arg-type]
        (lambda: tokenizer.decode(5), "ids is 5; it should be a list of token ids"),  # type: ignore[arg-type]
        (lambda: tokenizer.decode(["a"]), "id is 'a'; it should be a whole number"),  # type: ignore[list-item]
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value) == message


def test_paths_are_texts_and_path_objects() -> None:
    assert as_path("a/b", "file") == as_path(Path("a/b"), "file") == Path("a/b")
    assert as_paths("a", "files") == [Path("a")]
    assert as_paths(("a", Path("b")), "files") == [Path("a"), Path("b")]


def test_long_value_is_cut_and_stays_on_one_line() -> None:
    assert shown("a\n" * 100) == shown("a\n" * 100).strip()
    assert len(shown("a" * 1000)) == 61
