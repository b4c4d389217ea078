"""Host, Origin, CORS and key, on every route."""

import logging

import pytest

from serving_stub import call
from tinyllm.serving.security import access, is_loopback, is_wildcard

KEY = "sk-a-key"
ROUTES = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/storybook"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/metrics"),
    ("GET", "/nothing"),
]
OPEN = [("GET", "/health"), ("GET", "/docs"), ("GET", "/openapi.json")]
BODY = {"prompt": "a"}
WRONG_HOSTS = ["user@localhost", "localhost/evil", "localhost?evil", "localhost#e", "localhost:x", "localhost:99999"]
WRONG_HOSTS += ["localhost:80\t0", "localhost:-1", "localhost..", "localhost,localhost", "localhost\\evil", ":8080"]


def status(method: str, path: str, key: str | None = None, needed: str | None = KEY, **headers: str) -> int:
    """The status of a request with a key (None = without) to a server that needs `needed`."""
    given = {} if key is None else {"Authorization": key}
    rules = access("127.0.0.1", needed, (), ())
    body = BODY if method == "POST" else None
    return call(method, path, body, rules=rules, headers={**given, **headers}).status_code


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_needs_the_key(method: str, path: str) -> None:
    for wrong in (None, "", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, f"Basic {KEY}"):
        assert status(method, path, wrong) == 401
    assert status(method, path, f"Bearer {KEY}") not in (401, 403)
    assert status(method, path, f"bearer {KEY}") not in (401, 403)
    assert status(method, path, needed=None) not in (401, 403)


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_health_and_documentation_need_no_key(method: str, path: str) -> None:
    assert status(method, path) == 200


@pytest.mark.parametrize(("method", "path"), ROUTES + OPEN)
def test_every_route_refuses_foreign_hosts_and_origins(method: str, path: str) -> None:
    key = f"Bearer {KEY}"
    for host in (
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "10.0.0.5:8080",
        "",
        "[::1",
        *WRONG_HOSTS,
    ):
        assert status(method, path, key, Host=host) == 403
    for origin in ("http://evil.example", "null", "http://localhost:9999", "https://localhost:8080"):
        assert status(method, path, key, Origin=origin) == 403
    for host in ("localhost:8080", "LOCALHOST", "localhost.", "localhost.:80", "127.0.0.1:1", "[::1]:8080"):
        assert status(method, path, key, Host=host) not in (401, 403)
    assert status(method, path, key, Origin="http://localhost:8080") not in (401, 403)


def test_a_wrong_key_is_answered_in_openai_s_form_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    rules = access("127.0.0.1", KEY, (), ())
    with caplog.at_level(logging.DEBUG):
        response = call("GET", "/v1/models", rules=rules, headers={"Authorization": "Bearer sk-wrong-one"})
        call("GET", "/v1/models", rules=rules, headers={"Authorization": f"Bearer {KEY}"})
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert "sk-" not in response.text + caplog.text


def test_further_hosts_and_origins_can_be_allowed() -> None:
    rules = access("192.168.1.5", KEY, ["My-Laptop.local"], ["https://Chat.example/"])
    headers = {"Authorization": f"Bearer {KEY}", "Host": "my-laptop.local:8080", "Origin": "https://chat.example"}
    response = call("GET", "/v1/models", rules=rules, headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://chat.example"
    assert response.headers["vary"] == "Origin"
    assert call("GET", "/health", rules=rules, headers={"Host": "192.168.1.5"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"Authorization": "Bearer no"}, 401), ({"Host": "evil.example"}, 403)]
)
def test_a_page_that_is_allowed_can_read_a_refusal(headers: dict[str, str], status: int) -> None:
    origin = "https://chat.example"
    rules = access("127.0.0.1", KEY, (), [origin])
    response = call("GET", "/v1/models", rules=rules, headers={"Origin": origin, **headers})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == origin
    foreign = call("GET", "/v1/models", rules=rules, headers={"Origin": "https://evil.example", **headers})
    assert "access-control-allow-origin" not in foreign.headers


def test_an_origin_with_a_user_is_not_the_server_s_own() -> None:
    headers = {"Host": "evil@localhost", "Origin": "http://evil@localhost"}
    assert call("GET", "/v1/models", headers=headers).status_code == 403


def test_a_name_that_is_allowed_may_end_with_a_dot() -> None:
    for allowed in ("models.example", "models.example."):
        rules = access("127.0.0.1", None, [allowed], ())
        for host in ("models.example", "models.example.:8080"):
            assert call("GET", "/health", rules=rules, headers={"Host": host}).status_code == 200


def test_no_cors_unless_named() -> None:
    response = call("GET", "/v1/models", headers={"Origin": "http://localhost:8080"})
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_preflight_of_an_allowed_origin_needs_no_key() -> None:
    rules = access("127.0.0.1", KEY, (), ["https://chat.example"])
    headers = {"Origin": "https://chat.example", "Access-Control-Request-Headers": "authorization,x-stainless-lang"}
    response = call("OPTIONS", "/v1/completions", rules=rules, headers=headers)
    assert response.status_code == 204
    assert response.headers["access-control-allow-headers"] == "authorization,x-stainless-lang"
    assert call("OPTIONS", "/v1/completions", rules=rules, headers={"Origin": "https://x.example"}).status_code == 403


def test_a_server_on_all_addresses_answers_to_any_address_and_to_no_foreign_name() -> None:
    rules = access("0.0.0.0", KEY, (), ())
    assert call("GET", "/health", rules=rules, headers={"Host": "192.168.7.7:8080"}).status_code == 200
    assert call("GET", "/health", rules=rules, headers={"Host": "evil.example"}).status_code == 403


def test_addresses_are_told_apart() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.5.5.5", "::1", "0.0.0.0", "::", "10.0.0.1")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert [is_wildcard(host) for host in ("0.0.0.0", "::", "127.0.0.1", "localhost")] == [True, True, False, False]
