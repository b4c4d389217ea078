"""Answers of the studio's routes: JSON of any value that files can hold, and server-sent events.

Names and texts come from files, so a text may be no valid Unicode, and a number may be infinite.
"""

import json
import math
from typing import Any

from starlette.responses import Response

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def as_json(value: Any) -> bytes:
    """`value` as JSON in UTF-8. Numbers that are not finite become null, lone surrogates a question mark."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="replace")


def answer(value: Any) -> Response:
    """The response with `value` as JSON."""
    return Response(as_json(value), headers=HEADERS, media_type="application/json")


def event(name: str, value: Any) -> bytes:
    """The server-sent event `name` with `value` as JSON."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), as_json(value))


def _finite(value: Any) -> Any:
    """A copy of `value` with None for each number that is not finite."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
    return value
