"""Requests that `schemathesis` makes from the server's own schema: no crash, and no answer that the schema lacks."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server_process import ServerProcess

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
NUM_EXAMPLES = 25


@pytest.fixture(scope="module")
def operations(server: ServerProcess) -> list[Any]:
    """All operations of the schema that the server publishes."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


def test_the_schema_has_every_route(operations: list[Any]) -> None:
    assert {operation.path for operation in operations} == {
        "/v1/models",
        "/v1/models/{name}",
        "/v1/completions",
        "/v1/chat/completions",
        "/tokenize",
        "/detokenize",
        "/health",
        "/metrics",
    }


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_operation_keeps_its_schema(operations: list[Any], mode: GenerationMode) -> None:
    num_checked = 0

    def check(case: Any) -> None:
        nonlocal num_checked
        num_checked += 1
        if isinstance(case.body, dict) and type(case.body.get("max_tokens")) is int:
            case.body["max_tokens"] = min(case.body["max_tokens"], 16)  # the texts are another test's
        case.call_and_validate(checks=CHECKS)

    for operation in operations:
        if mode == GenerationMode.NEGATIVE and operation.method == "get":
            continue
        run = settings(
            max_examples=NUM_EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        run(given(case=operation.as_strategy(generation_mode=mode))(check))()
    assert num_checked > 4 * NUM_EXAMPLES // 2
