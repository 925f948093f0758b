"""The OpenAPI document as one plain HTML page: no script, no font, no request to anybody else."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       background: #0d1117; color: #d5dbe3 }
h1 small, .t { color: #8b96a5 } code { color: #7fd1b9 } a { color: #79b8ff }
section { border-top: 1px solid #232b36 }
b { color: #f0b35a; font-weight: 600 }
"""


def docs_page(openapi: dict[str, Any]) -> str:
    """The page."""
    info = openapi["info"]
    operations = [
        _operation(path, method, operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>ndtwin API</title><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>"
        f"<p>{escape(info['description'])}</p>"
        '<p><a href="openapi.json">openapi.json</a>. <a href="/metrics">/metrics</a>.</p>'
        f"{''.join(operations)}</html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = "".join(_parameter(p) for p in operation.get("parameters", []))
    return (
        f"<section><h3><b>{method.upper()}</b> <code>{escape(path)}</code></h3>"
        f"<p>{escape(operation.get('description', ''))}</p><ul>{parameters}</ul></section>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    schema = parameter.get("schema", {})
    values = schema.get("enum") or [v for option in schema.get("anyOf", []) for v in option.get("enum", [])]
    choice = f": {', '.join(map(str, values))}" if values else ""
    default = f", default {schema['default']}" if "default" in schema else ""
    text = escape(f"{choice}{default} {parameter.get('description', '')}")
    return f"<li><code>{escape(parameter['name'])}</code><span class=t> ({parameter['in']}){text}</span></li>"
