"""Bodies of requests: size, nesting, form."""

import json
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from serving_stub import call
from tinyllm.serving import app
from tinyllm.serving.body import is_deeper
from tinyllm.serving.errors import ApiError, invalid_request
from tinyllm.serving.limits import Limits

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("text", "depth", "expected"),
    [
        ("[[1]]", 2, False),
        ("[[[1]]]", 2, True),
        ('{"a": [{"b": 1}]}', 3, False),
        ('{"a": [{"b": 1}]}', 2, True),
        ("[1], [2], [3]", 1, False),
        ('["[[[", "\\"[[[", "\\\\"]', 1, False),
        ('["\\\\", [[', 2, True),
        ('"[[[[', 1, False),
        ('"[[[[\\\\\\', 1, False),
        ('"' + "[" * 500_000, 1, False),
        ("[" * 100_000, 32, True),
    ],
)
def test_nesting_is_counted_outside_of_strings(text: str, depth: int, expected: bool) -> None:
    assert is_deeper(text.encode(), depth, 10**6) is expected


def test_arrays_and_objects_are_counted_outside_of_strings() -> None:
    assert not is_deeper(b'[{}, [], "[{[{"]', 2, 3)
    assert is_deeper(b'[{}, [], "[{[{"]', 2, 2)


def test_the_search_for_nesting_takes_no_memory_for_long_strings() -> None:
    text = json.dumps(["[" * 2**19, '\\"' * 2**18, *[""] * 1000]).encode()
    tracemalloc.start()
    try:
        assert not is_deeper(text, 32, 10**6)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


WRONG_BODIES = {
    "ids": ("/detokenize", {"tokens": [""] * 200_000}, 'tokens[0] is ""'),
    "prompts": ("/v1/completions", {"prompt": [[""] * 1000] * 200}, "prompt"),
    "unknown parameters": ("/v1/completions", {"prompt": "a"} | {f"k{n}": 1 for n in range(50_000)}, ": k0"),
    "biases": ("/v1/completions", {"prompt": "a", "logit_bias": {f"k{n}": "" for n in range(50_000)}}, "300 items"),
    "parts": ("/v1/chat/completions", {"messages": [{"role": "user", "content": [1] * 200_000}]}, "[0].content"),
    "right parts": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 30_000}]},
        "at most 1,000 parts",
    ),
    "messages": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": ""} | {f"k{n}": 1 for n in range(60)}] * 999},
        "messages[0].k0",
    ),
}


@pytest.mark.parametrize("what", WRONG_BODIES)
def test_one_error_of_a_body_is_found_and_the_rest_is_not_read(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, body, word = WRONG_BODIES[what]
    counts: list[int] = []

    def answer(errors: Sequence[Mapping[str, Any]]) -> ApiError:
        counts.append(len(errors))
        return invalid_request(errors)

    monkeypatch.setattr(app, "invalid_request", answer)
    response = call("POST", path, body)
    assert response.status_code == 400
    assert word in response.json()["error"]["message"]
    assert counts == [1]


def test_the_arrays_and_objects_of_a_body_are_limited() -> None:
    body = {"prompt": "a", "x": [[]] * 100_000}
    assert call("POST", "/v1/completions", body).json()["error"]["code"] == "nested_too_deep"


def test_a_body_may_have_the_largest_size_and_no_byte_more() -> None:
    limits = Limits(body_bytes=1000)
    body = json.dumps({"prompt": "a"}).ljust(1000)
    assert call("POST", "/v1/completions", content=body, headers=JSON, limits=limits).status_code == 200
    response = call("POST", "/v1/completions", content=body + " ", headers=JSON, limits=limits)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert "1,000 bytes" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "no body"),
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('"text"', "JSON object"),
        ("3", "JSON object"),
        ("null", "JSON object"),
        ("\xff", "UTF-8"),
        ("[" * 10_000, "deeper than 32"),
        ('{"a":' * 10_000, "deeper than 32"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "too long"),
        ('{"prompt": "a", "temperature": NaN}', "temperature"),
        ('{"prompt": "a", "temperature": 1e999}', "temperature"),
        ('{"prompt": "a", "temperature": -Infinity}', "temperature"),
        ('{"prompt": "a", "\\ud800": 1}', "unicode"),
        ('{"prompt": "a", "' + "x" * 5000 + '": 1}', "Unrecognized"),
    ],
)
def test_a_body_that_is_no_request_is_400(content: str, word: str) -> None:
    response = call("POST", "/v1/completions", content=content.encode("latin-1"), headers=JSON)
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert word in error["message"], error
    assert error["type"] == "invalid_request_error"
    assert len(response.content) < 1000


def test_a_body_of_another_type_is_400() -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        response = call("POST", "/v1/completions", content='{"prompt": "a"}', headers={"Content-Type": kind})
        assert response.status_code == 400
        assert "application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_body_in_another_encoding_is_refused(encoding: str) -> None:
    content = json.dumps({"prompt": "a"}).encode(encoding)
    response = call("POST", "/v1/completions", content=content, headers=JSON)
    assert response.status_code == 400
    assert "UTF-8" in response.json()["error"]["message"]


def test_a_null_character_in_a_text_is_a_character() -> None:
    assert call("POST", "/tokenize", {"content": "a\0b"}).status_code == 200


@pytest.mark.parametrize(
    ("header", "coding", "status"), [("Content-Encoding", "gzip", 415), ("Transfer-Encoding", "gzip, chunked", 501)]
)
def test_a_compressed_body_is_refused_by_its_coding(header: str, coding: str, status: int) -> None:
    answer = call("POST", "/tokenize", content=b"\x1f\x8b", headers={**JSON, header: coding})
    assert answer.status_code == status
    assert f"{header} {coding} is not supported; send the body uncompressed" in answer.json()["error"]["message"]
