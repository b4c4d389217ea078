"""The page `/docs`: every path and parameter, from the schema of the API. It loads nothing from elsewhere."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { border-bottom: 1px solid #ccc; padding: .2rem .6rem .2rem 0;
text-align: left; vertical-align: top } code { font: 14px ui-monospace, monospace } h2 { margin-top: 2rem }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd } }
"""


def page(schema: Mapping[str, Any]) -> str:
    """The HTML page for an OpenAPI schema."""
    title = f"{schema['info']['title']} {schema['info']['version']}"
    sections = "".join(
        _operation(method, path, operation, schema)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    )
    intro = (
        "<p>The interface is OpenAI's: any client of it works with this server's address and <code>/v1</code> as the "
        'base URL. The same in machine-readable form: <a href="openapi.json">openapi.json</a>.</p>'
    )
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}<h1>{escape(title)}</h1>{intro}{sections}</html>'


def _operation(method: str, path: str, operation: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    heading = f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('summary', ''))}</p>"
    body = operation.get("requestBody")
    parameters = "" if body is None else _parameters(_resolve(_json_schema(body), schema))
    return heading + parameters + _answer(_json_schema(operation["responses"]["200"]), schema)


def _json_schema(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a body in JSON; empty for another type."""
    found: Mapping[str, Any] = part["content"].get("application/json", {}).get("schema", {})
    return found


def _parameters(model: Mapping[str, Any]) -> str:
    required = model.get("required", [])
    rows = "".join(_row(name, each, name in required) for name, each in model["properties"].items())
    return f"<table><tr><th>parameter<th>type<th>default<th>meaning</tr>{rows}</table>"


def _answer(answer: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A line with the fields of an answer, those of its objects in braces."""
    if not answer:
        return ""
    return f"<p>Answer: <code>{escape(_outline(answer, schema))}</code></p>"


def _outline(part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The names of the fields of `part`, or nothing if it is no object."""
    kinds = [_resolve(each, schema) for each in part.get("anyOf", [part])]
    kinds = [_resolve(each["items"], schema) if "items" in each else each for each in kinds]
    fields: Mapping[str, Any] = next((each["properties"] for each in kinds if "properties" in each), {})
    inner = ((name, _outline(each, schema)) for name, each in fields.items())
    shown = ", ".join(f"{name} {outline}".strip() for name, outline in inner)
    return f"{{{shown}}}" if shown else ""


def _row(name: str, field: Mapping[str, Any], is_required: bool) -> str:
    default = "required" if is_required else "" if field.get("default") is None else json.dumps(field["default"])
    cells = (
        f"<code>{escape(name)}</code>",
        escape(_type(field)),
        escape(default),
        escape(field.get("description", "")),
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"


def _type(field: Mapping[str, Any]) -> str:
    """The type of a parameter with its bounds, such as `number 0 to 2`."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(each) for each in field["anyOf"] if each.get("type") != "null"))
    if "$ref" in field:
        return "object"
    kind = str(field.get("type", "object"))
    if kind == "array":
        return f"array of {_type(field['items'])}"
    low, high = _bound(field, "minimum", "exclusiveMinimum"), _bound(field, "maximum", "exclusiveMaximum")
    return kind if low is None or high is None else f"{kind} {low} to {high}"


def _bound(field: Mapping[str, Any], name: str, exclusive_name: str) -> str | None:
    """A bound in words: `3`, or `1 (exclusive)`; None if the field has none."""
    if name in field:
        return _number(field[name])
    return f"{_number(field[exclusive_name])} (exclusive)" if exclusive_name in field else None


def _number(value: float) -> str:
    """All digits of a number, without a decimal point if it is whole."""
    return str(int(value) if value == int(value) else value)


def _resolve(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """`part`, or the component that it refers to."""
    if "$ref" not in part:
        return part
    found: Mapping[str, Any] = schema["components"]["schemas"][part["$ref"].rpartition("/")[2]]
    return found
