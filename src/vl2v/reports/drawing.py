"""Matplotlib panels as inline SVG that uses the colours of the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours that no figure uses otherwise. In the finished SVG, each is replaced by a CSS variable of the page. One
# drawing therefore works in light mode, in dark mode and in print.
NAMES = ("ink", "soft", "rule", "paper", "band", "student", "teacher", "shade", "strong", *(f"c{i}" for i in range(8)))
COLOUR = {name: f"#0102{i:02x}" for i, name in enumerate(NAMES)}
INK, SOFT, RULE, PAPER, STUDENT, TEACHER, SHADE, STRONG = (
    COLOUR[name] for name in ("ink", "soft", "rule", "paper", "student", "teacher", "shade", "strong")
)
CLASS_COLOURS = tuple(COLOUR[f"c{i}"] for i in range(8))
WIDTH, HEIGHT = 4.7, 3.1  # inches of a panel; its text is then slightly smaller than that of the page

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vl2v",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Panel:
    """One drawing.

    Attributes:
        svg: the drawing, which can be inserted into the page without escaping.
    """

    title: str
    svg: str


def panel(name: str, title: str, alt: str, draw: Callable[[Axes], None], *, height: float = HEIGHT) -> Panel:
    """Draw a panel with one pair of axes.

    Args:
        name: name, unique in the page.
        height: height in inches.
    """
    with rc_context(STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the text is drawn with the fonts of the reader
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Panel(title, inline(buffer.getvalue(), name, alt))


def inline(svg: str, name: str, alt: str) -> str:
    """Convert an SVG file of matplotlib for use in a page: no prologue, unique ids, colours and fonts of the page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<style type="text/css">.*?</style>', "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box is not None  # matplotlib always writes one
    svg = re.sub(r"\n\s*", "\n", svg[svg.index(">") + 1 :])
    svg = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], name), svg)  # text between tags is not changed
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(alt)}">{svg}'


def _tag(tag: str, name: str) -> str:
    """Convert one tag: unique ids, colours and fonts of the page, and rounded coordinates."""
    if tag.startswith("<g id="):
        return "<g/>" if tag.endswith("/>") else "<g>"
    tag = re.sub(r' id="([^"]+)"', rf' id="{name}-\1"', tag)
    tag = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", tag)
    tag = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', tag).replace("xlink:href=", "href=")
    tag = re.sub(r"font-family: [^;\"]+; ", "", tag)
    tag = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", tag)
    if "base64," not in tag:
        tag = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag)
    for key, colour in COLOUR.items():
        tag = tag.replace(colour, f"var(--{key})")
    return tag
