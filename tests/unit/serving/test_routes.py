"""The routes beside completions and chat."""

import json
import re

import pytest

from serving_stub import CONTEXT_LENGTH, call, served
from tinyllm.serving.app import build_app
from tinyllm.serving.limits import Limits
from tinyllm.serving.metrics import Metrics
from tinyllm.serving.models import Models
from tinyllm.serving.security import access


def test_models_are_listed_and_described() -> None:
    models = [served("first"), served("second")]
    found = call("GET", "/v1/models", models=models).json()
    assert found["object"] == "list"
    assert [model["id"] for model in found["data"]] == ["first", "second"]
    one = call("GET", "/v1/models/second", models=models).json()
    assert one == found["data"][1]
    assert (one["object"], one["owned_by"], one["max_model_len"]) == ("model", "tinyllm", CONTEXT_LENGTH)
    assert call("GET", "/v1/models/third", models=models).json()["error"]["code"] == "model_not_found"


def test_health_is_ok() -> None:
    assert call("GET", "/health").json() == {"status": "ok"}


def test_a_server_that_ends_is_not_healthy() -> None:
    models = Models([served()])
    models.close()
    app = build_app(models, Metrics(), access("127.0.0.1", None, (), ()), Limits())
    response = call("GET", "/health", app=app)
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert response.json()["error"]["code"] == "shutting_down"


@pytest.mark.parametrize("path", ["/health", "/docs", "/v1/models", "/metrics", "/nothing"])
def test_head_is_get_without_the_body(path: str) -> None:
    got, head = call("GET", path), call("HEAD", path)
    assert head.status_code == got.status_code
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.content == b""


def test_head_of_a_path_that_has_no_get_is_refused() -> None:
    assert call("HEAD", "/v1/completions").status_code == 405


def test_an_error_repeats_no_long_path() -> None:
    assert len(call("GET", "/" + "a" * 5_000).text) < 500
    assert len(call("POST", "/v1/models/" + "a" * 5_000, {}).text) < 500


def test_a_text_becomes_ids_and_again_a_text() -> None:
    found = call("POST", "/tokenize", {"content": "Once upon"}).json()
    assert found == {"tokens": [633, 675], "count": 2, "max_model_len": CONTEXT_LENGTH}
    assert call("POST", "/tokenize", {"content": "Once upon", "add_special": True}).json()["tokens"] == [1, 633, 675]
    assert call("POST", "/tokenize", {"prompt": "Once upon"}).json()["tokens"] == [1, 633, 675]
    found = call("POST", "/tokenize", {"prompt": "Once upon", "add_special_tokens": False}).json()
    assert found["tokens"] == [633, 675]
    assert call("POST", "/detokenize", {"tokens": [1, 633, 675]}).json()["content"] == "Once upon"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"content": "a", "prompt": "a"}),
        ("/tokenize", {"content": 3}),
        ("/tokenize", {"content": "a", "with_pieces": True}),
        ("/detokenize", {}),
        ("/detokenize", {"tokens": [2048]}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": "1"}),
    ],
)
def test_wrong_bodies_of_the_tokenizer_are_400(path: str, body: dict[str, object]) -> None:
    assert call("POST", path, body).status_code == 400


def test_unknown_paths_and_methods_are_told_in_openai_s_form() -> None:
    for method, path, status in (
        ("GET", "/v2/models", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/", 404),
    ):
        response = call(method, path)
        assert response.status_code == status
        assert path in response.json()["error"]["message"]


def test_metrics_have_the_names_of_the_documentation() -> None:
    response = call("GET", "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert 'tinyllm_running_texts{model="storybook"} 2.0' in response.text
    assert 'tinyllm_waiting_texts{model="storybook"} 1.0' in response.text
    assert 'tinyllm_slots{model="storybook"} 8.0' in response.text


def test_requests_are_counted_by_the_paths_of_the_routes() -> None:
    metrics = Metrics()
    seen = ["/v1/models", "/v1/models/storybook", "/docs", "/openapi.json", "/wp-login.php"]
    for path in seen:
        call("GET", path, metrics=metrics)
    text = metrics.expose([]).decode()
    counted = dict(re.findall(r'tinyllm_requests_total\{path="([^"]*)",status="(\d+)"\}', text))
    assert counted == {"/v1/models": "200", "/docs": "200", "/openapi.json": "200", "other": "404"}


def test_the_page_of_documentation_names_every_parameter_and_loads_nothing() -> None:
    text = call("GET", "/docs").text
    schema = call("GET", "/openapi.json").json()
    for path, methods in schema["paths"].items():
        assert f" {path}</code>" in text, methods
    for name in schema["components"]["schemas"]["CompletionRequest"]["properties"]:
        assert f"<code>{name}</code>" in text
    assert not re.findall(r"https?://|<script|<link|src=", text)
    assert json.dumps(schema)


def test_the_page_of_documentation_outlines_every_answer() -> None:
    text = call("GET", "/docs").text
    model = "{id, object, created, owned_by, max_model_len}"
    logprobs = "{tokens, token_logprobs, top_logprobs, text_offset}"
    usage = "{prompt_tokens, completion_tokens, total_tokens}"
    for outline in (
        f"{{object, data {model}}}",
        f"choices {{index, text, logprobs {logprobs}, finish_reason}}, usage {usage}}}",
        "message {role, content, refusal}",
        "{tokens, count, max_model_len}",
        "{status}",
    ):
        assert outline in text


def test_the_page_of_documentation_has_exact_bounds_and_defaults_in_json() -> None:
    text = call("GET", "/docs").text
    for row in (
        "<td><code>top_p</code><td>number 0 (exclusive) to 1<td>1.0<td>",
        "<td><code>min_p</code><td>number 0 to 1 (exclusive)<td>0.0<td>",
        "<td><code>repetition_penalty</code><td>number 0 (exclusive) to 1000<td>1.0<td>",
        "<td><code>top_k</code><td>integer -1 to 2147483648 (exclusive)<td>0<td>",
        "<td><code>seed</code><td>integer -9223372036854775808 to 9223372036854775808 (exclusive)<td><td>",
        "<td><code>stream</code><td>boolean<td>false<td>",
        "<td><code>echo</code><td>boolean<td>false<td>",
    ):
        assert row in text, row
    assert "array of integer 0 to 2147483648 (exclusive)" in text
