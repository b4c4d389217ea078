"""Whole responses written without the framework: middleware, streams and the protocol use them."""

from starlette.types import Send

from tinyllm.serving.errors import ApiError

REASONS = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


async def start(
    send: Send, status: int, content_type: bytes, *, length: int | None = None, headers: dict[str, str] | None = None
) -> None:
    """Sends the head of a response; `length` in bytes is known for a whole one."""
    pairs = [
        (b"content-type", content_type),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if length is not None:
        pairs.append((b"content-length", str(length).encode()))
    pairs += [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def send_error(error: ApiError, send: Send) -> None:
    """Sends an error in OpenAI's form."""
    await start(send, error.status, b"application/json", length=len(error.body), headers=error.headers)
    await send({"type": "http.response.body", "body": error.body})


def last_response(error: ApiError) -> bytes:
    """The bytes of an error with one of the statuses of `REASONS`, after which the connection closes."""
    headers = {"content-type": "application/json", "content-length": str(len(error.body)), "connection": "close"}
    lines = [f"HTTP/1.1 {error.status} {REASONS[error.status]}"]
    lines += [f"{name}: {value}" for name, value in (headers | error.headers).items()]
    return "\r\n".join([*lines, "", ""]).encode() + error.body
