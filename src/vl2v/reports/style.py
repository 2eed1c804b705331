"""Templates and style sheet of all pages that vl2v creates."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined


def fill(package: str, name: str, **values: Any) -> str:
    """Fill an HTML template of a package, with escaped values."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)


def style() -> str:
    """Style sheet of all pages that vl2v creates."""
    return resources.files("vl2v.reports").joinpath("template", "style.css").read_text(encoding="utf-8")
