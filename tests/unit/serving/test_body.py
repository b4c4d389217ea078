"""Bodies of requests: size, nesting, form."""

import json

import pytest

from serving_stub import call
from tinyllm.serving.body import is_deeper
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
        ("[" * 100_000, 32, True),
    ],
)
def test_nesting_is_counted_outside_of_strings(text: str, depth: int, expected: bool) -> None:
    assert is_deeper(text.encode(), depth) is expected


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
