"""The self-contained pages, and their content security policy."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from fastapi.responses import HTMLResponse

HERE = Path(__file__).parent / "page"
SCRIPTS = ("base.js", "images.js", "answers.js", "classes.js", "start.js")  # joined in this order


def main_page() -> HTMLResponse:
    """Create the main page, on which users classify images and edit the classes."""
    style, script = _text("page.css"), "\n".join(map(_text, SCRIPTS))
    html = _text("page.html").replace("/*style*/", style, 1).replace("/*script*/", script, 1)
    return HTMLResponse(html, headers=_headers(style, script))


def api_page(description: Mapping[str, Any]) -> HTMLResponse:
    """Create the documentation of the API from its OpenAPI description, without a script."""
    style = _text("page.css") + _text("docs.css")
    loader = jinja2.FileSystemLoader(HERE)
    template = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("docs.html.j2")
    schemas = description.get("components", {}).get("schemas", {})
    types = {name: schema for name, schema in schemas.items() if "ValidationError" not in name}  # not FastAPI's own
    pretty = partial(json.dumps, indent=2)
    html = template.render(api=description, pretty=pretty, type_name=_type_name, types=types)
    return HTMLResponse(html.replace("/*style*/", style, 1), headers=_headers(style))


def _type_name(schema: Mapping[str, Any]) -> str:
    """Return a short name of a type, such as ``list of ClassProbability``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(map(_type_name, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type_name(schema.get('items', {}))}"
    if schema.get("format") == "binary":
        return "file"
    return str(schema.get("type", "any"))


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _headers(style: str, script: str | None = None) -> dict[str, str]:
    """Return headers that allow only this style and script, by their hashes, and no frames."""
    policy = [
        "default-src 'none'",
        f"style-src '{_hash(style)}'",
        *([f"script-src '{_hash(script)}'", "connect-src 'self'"] if script else []),
        "img-src 'self' blob: data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return {"content-security-policy": "; ".join(policy), "cache-control": "no-cache"}


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
