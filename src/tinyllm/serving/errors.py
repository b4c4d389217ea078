"""Errors in OpenAI's form: `{"error": {"message", "type", "param", "code"}}` with the right status.

An `ApiError` is raised anywhere in a request. Errors of the library and of pydantic become one here. Some have a
further field `values`: the numbers and names of the message, for clients that write it in another language.
"""

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from tinyllm.errors import InputError, QueueFullError, ResourceError, ShuttingDownError, TinyllmError, UsageError

INVALID, SERVER = "invalid_request_error", "server_error"
SHOWN_CHARACTERS = 80
"""Characters of a wrong value that a message repeats."""
DRAINING_RETRY_SECONDS = 30


class ApiError(Exception):
    """A request that fails: the status of the response, and the fields of OpenAI's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        values: Mapping[str, str | int] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.fields: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
        if values:
            self.fields["values"] = dict(values)

    @property
    def body(self) -> bytes:
        """The response's body."""
        return json.dumps({"error": self.fields}).encode()


def model_not_found(name: str) -> ApiError:
    """OpenAI's error for an unknown model."""
    message = f"The model `{shorten(name)}` does not exist"
    return ApiError(404, message, param="model", code="model_not_found", values={"model": shorten(name)})


def as_api_error(error: Exception) -> ApiError:
    """The error of the API for any exception. Only an unexpected one gives a status of 500, without details."""
    match error:
        case ApiError():
            return error
        case QueueFullError():
            seconds = max(1, round(error.retry_after_seconds))
            headers = {"Retry-After": str(seconds)}
            values = {"seconds": seconds}
            return ApiError(503, str(error), kind=SERVER, code="queue_full", headers=headers, values=values)
        case ShuttingDownError():
            headers = {"Retry-After": str(DRAINING_RETRY_SECONDS)}
            return ApiError(503, str(error), kind=SERVER, code="shutting_down", headers=headers)
        case ResourceError() | MemoryError():
            message = str(error) or "the server has too little memory for this request"
            return ApiError(503, message, kind=SERVER, code="out_of_memory", headers={"Retry-After": "1"})
        case InputError() | UsageError():
            parameter = getattr(error, "parameter", "") or None
            return ApiError(400, str(error), param=parameter)
        case TinyllmError():
            return ApiError(500, str(error), kind=SERVER)
    message = "the server failed at this request; its log has the reason"
    return ApiError(500, message, kind=SERVER, code="server_failed")


def invalid_request(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The error for the first problem that pydantic found in a request: parameter, value and limit."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {first['ctx']['error']}")
    place = first["loc"][1:] if first["loc"][0] in ("body", "query") else first["loc"]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    reason = _plain(first["msg"])
    match first["type"]:
        case "extra_forbidden":
            message = f"Unrecognized request argument supplied: {shorten(name)}"
            return ApiError(400, message, param=shorten(name), code="unknown_parameter")
        case "missing":
            what = f"Missing required parameter: '{name}'." if name else "The request has no body; send a JSON object"
            return ApiError(400, what, param=name or None, code="missing_required_parameter")
        case "value_error" if not name:
            return ApiError(400, reason, param=_parameter_of(first))
        case "value_error":
            return ApiError(400, f"{name}: {reason}", param=name)
    if not name:
        return ApiError(400, f"The body should be a JSON object with Content-Type: application/json; {reason}")
    message = f"{shorten(name)} is {_as_json(first.get('input'))}; {reason}"
    if first["type"] == "string_too_long":
        values = {"most": first["ctx"]["max_length"]}
        return ApiError(400, message, param=shorten(name), code="string_above_max_length", values=values)
    return ApiError(400, message, param=shorten(name), code="invalid_value", values={"parameter": shorten(name)})


def _plain(message: str) -> str:
    """A message of pydantic in words of JSON."""
    plain = message.removeprefix("Value error, ").replace("Input should", "it should")
    plain = plain.replace("dictionary or object to extract fields from", "object").replace("dictionary", "object")
    return re.sub(r"^(List|Dictionary|String) should", "it should", re.sub(r" after validation, not \d+$", "", plain))


def _as_json(value: object) -> str:
    """`value` as the client wrote it, quotes included: a number in quotes is a wrong type. One line, shortened."""
    if value is None or isinstance(value, str | bool):
        short = value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value
        return shorten(json.dumps(short, ensure_ascii=False))
    return shorten(value)


def _parameter_of(error: Mapping[str, Any]) -> str | None:
    """The parameter that a rule over several parameters names: the first word of its message."""
    return str(error["msg"]).removeprefix("Value error, ").split(" ")[0] or None


def shorten(value: object) -> str:
    """`value` as one printable line of at most `SHOWN_CHARACTERS`."""
    text = value if isinstance(value, str) and value else reprlib.repr(value)
    text = text[: SHOWN_CHARACTERS + 1]
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
