"""The style sheet of every page that vl2v makes."""

from __future__ import annotations

from importlib import resources


def style() -> str:
    """The style sheet of every page that vl2v makes."""
    return resources.files("vl2v.reports").joinpath("template", "style.css").read_text(encoding="utf-8")
