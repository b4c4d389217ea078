"""The page and its files, with the headers that confine it."""

from pathlib import Path

import pytest

from serving_stub import call
from tinyllm.serving.security import access
from tinyllm.serving.studio.page_files import FOLDER, POLICY

FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
KEY = access("127.0.0.1", "the-key", (), ())


@pytest.mark.parametrize("path", ["/", *(f"/studio/page/{name}" for name in FILES)])
def test_every_file_is_served_without_a_key_under_the_policy(path: str) -> None:
    response = call("GET", path, rules=KEY)
    assert response.status_code == 200
    assert response.content == (FOLDER / ("index.html" if path == "/" else path[13:])).read_bytes()
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"
    assert call("GET", path, rules=KEY, headers={"Host": "evil.example"}).status_code == 403
    assert call("GET", path, rules=KEY, headers={"Origin": "http://evil.example"}).status_code == 403


def test_the_policy_allows_nothing_from_elsewhere_and_nothing_inline() -> None:
    assert POLICY.startswith("default-src 'none'")
    assert "unsafe" not in POLICY
    assert "http" not in POLICY


def test_a_file_that_the_client_has_is_not_sent_again() -> None:
    first = call("GET", "/")
    again = call("GET", "/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert call("GET", "/", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "name", ["", "nothing.js", "../__init__.py", "%2e%2e/__init__.py", "..%2froutes.py", "%00", "//etc"]
)
def test_no_path_leads_out_of_the_page(name: str) -> None:
    response = call("GET", f"/studio/page/{name}")
    assert response.status_code == 404
    assert set(response.json()["error"]) - {"values"} == {"message", "type", "param", "code"}


def test_the_types_of_scripts_and_styles_are_those_that_browsers_ask_for() -> None:
    types = {Path(name).suffix: call("GET", f"/studio/page/{name}").headers["content-type"] for name in FILES}
    assert types[".html"] == "text/html; charset=utf-8"
    assert types.get(".js", "text/javascript; charset=utf-8") == "text/javascript; charset=utf-8"
    assert types.get(".css", "text/css; charset=utf-8") == "text/css; charset=utf-8"
