"""Decides who may ask: by the names of the host, the pages of browsers, and the key. A middleware before all else.

Checking the Host header keeps a foreign page from reaching a server on loopback through a name of its own (DNS
rebinding). Checking Origin keeps it from sending requests whose answers it cannot read.
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinyllm.serving.errors import ApiError
from tinyllm.serving.responses import send_error

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = frozenset({"/", "/health", "/docs", "/openapi.json"})
"""Paths that need no key: they tell nothing about models and requests."""
OPEN_FOLDER = "/studio/page/"
"""Beginning of the paths of the studio's static files, which need no key."""
PREFLIGHT_SECONDS = 600
LAST_PORT = 2**16 - 1
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>[0-9]{0,5}))?")


@dataclass(frozen=True)
class Access:
    """The rules for the users of a server."""

    hosts: frozenset[str]
    """Names that a Host header may have, in lower case and without a port."""
    any_address: bool = False
    """Whether a Host header may also be any IP address: the server listens on all of them."""
    origins: frozenset[str] = frozenset()
    """Origins of pages that may use the server from a browser, such as `https://chat.example`."""
    key: str | None = None
    """The key that every request needs; None needs none."""


def access(host: str, key: str | None, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]) -> Access:
    """The rules for a server that listens on `host`, with further names and origins that are allowed."""
    names = {name.lower().strip("[]").removesuffix(".") for name in (host, *allowed_hosts)} | LOOPBACK_NAMES
    origins = frozenset(origin.lower().rstrip("/") for origin in allowed_origins)
    return Access(frozenset(names), is_wildcard(host), origins, key)


def is_loopback(host: str) -> bool:
    """Whether the IP address `host` can be reached from this machine alone."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def is_wildcard(host: str) -> bool:
    """Whether `host` is the address that stands for all addresses of the machine."""
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified


class Gate:
    """ASGI middleware that refuses requests by the rules of `Access`, and answers browsers by CORS."""

    def __init__(self, app: ASGIApp, rules: Access) -> None:
        self._app = app
        self._rules = rules
        self._key = None if rules.key is None else rules.key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        origin = self._foreign_origin(scope)
        send = send if origin is None else _with_origin(send, origin)
        try:
            host = self._check_host(scope)
            if origin is None:
                _check_own_origin(scope, host)
            elif scope["method"] == "OPTIONS":
                await _send_preflight(scope, send)
                return
            self._check_key(scope)
        except ApiError as error:
            await send_error(error, send)
            return
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _head_alone(send)
        await self._app(scope, receive, send)

    def _foreign_origin(self, scope: Scope) -> str | None:
        """The origin of the page that sends the request, if it is one of those that may use the server."""
        values = [value.rstrip("/") for value in _values(scope, b"origin")]
        return values[0] if len(values) == 1 and values[0] in self._rules.origins else None

    def _check_host(self, scope: Scope) -> str:
        """The Host header. Raises ApiError unless there is one, with an allowed name."""
        values = _values(scope, b"host")
        if len(values) != 1:
            raise ApiError(400, "the request should have one Host header")
        name = _without_port(values[0])
        allowed = name in self._rules.hosts or (self._rules.any_address and _is_address(name))
        if not allowed:
            message = "the Host header names a host that this server does not answer to; its operator can allow it"
            raise ApiError(403, message, code="host_not_allowed")
        return values[0]

    def _check_key(self, scope: Scope) -> None:
        """Raises ApiError unless the request has the key, or needs none. Compares in constant time."""
        if self._key is None or scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDER):
            return
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, given = (values[0] if len(values) == 1 else b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
            what = "Incorrect API key provided" if values else "You didn't provide an API key"
            message = f"{what}; send the server's key as: Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _values(scope: Scope, header: bytes) -> list[str]:
    """The values of a header in lower case."""
    return [value.decode("latin-1").lower() for name, value in scope["headers"] if name == header]


def _check_own_origin(scope: Scope, host: str) -> None:
    """Raises ApiError if the request comes from a page that is not the server's own."""
    values = [value.rstrip("/") for value in _values(scope, b"origin")]
    if values and values != [f"{scope['scheme']}://{host}"]:
        message = "pages of this origin may not use this server; its operator can allow it"
        raise ApiError(403, message, code="origin_not_allowed")


def _without_port(host: str) -> str:
    """The name or address in a Host header, without the dot that may end a full name; empty if it is none."""
    parts = _HOST.fullmatch(host)
    if parts is None or int(parts["port"] or 0) > LAST_PORT:
        return ""
    return parts["name"].strip("[]").removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _send_preflight(scope: Scope, send: Send) -> None:
    """Answers a browser's question whether a page may send a request; `send` adds the page's origin."""
    asked = b", ".join(value for name, value in scope["headers"] if name == b"access-control-request-headers")
    headers = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", asked or b"authorization, content-type"),
        (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _with_origin(send: Send, origin: str) -> Send:
    """`send` with the headers that let a page of `origin` read the response."""

    async def send_with_origin(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            pairs = [(b"access-control-allow-origin", origin.encode()), (b"vary", b"Origin")]
            message = {**message, "headers": [*message.get("headers", ()), *pairs]}  # type: ignore[misc]
        await send(message)

    return send_with_origin  # type: ignore[return-value]


def _head_alone(send: Send) -> Send:
    """`send` that ends a response after its head, as HEAD asks for."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    return send_head
