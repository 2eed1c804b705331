"""Style sheet of all pages that vl2v creates."""

from __future__ import annotations

from importlib import resources


def style() -> str:
    """Style sheet of all pages that vl2v creates."""
    return resources.files("vl2v.reports").joinpath("template", "style.css").read_text(encoding="utf-8")
