"""The figure of the embedding map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from vl2v.evaluation.evaluation import IN_DOMAIN
from vl2v.formatting import listed, percent, shortened
from vl2v.reports.drawing import CLASS_COLOURS, INK, PAPER, SOFT, Panel, panel
from vl2v.reports.maps import STAGES, EmbeddingMap
from vl2v.reports.source import ROLE_NAMES, Arrays

MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
# Shapes of the marks in the key, in a box of 10 by 10.
SHAPES = {
    "o": '<circle cx="5" cy="5" r="4"/>',
    "^": '<path d="M5 1 9 9 1 9z"/>',
    "s": '<path d="M1.5 1.5h7v7h-7z"/>',
    "D": '<path d="M5 .5 9.5 5 5 9.5.5 5z"/>',
    "v": '<path d="M5 9 9 1 1 1z"/>',
    "P": '<path d="M3.5.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"/>',
    "X": '<path d="M2.5.5 5 3 7.5.5 9.5 2.5 7 5l2.5 2.5-2 2L5 7 2.5 9.5l-2-2L3 5 .5 2.5z"/>',
    "*": '<path d="M5 0 6.5 3.5 10 4 7.300 6.300 8 10 5 8 2 10 2.700 6.300 0 4 3.500 3.500z"/>',
}


@dataclass(frozen=True)
class KeyItem:
    """An entry of the key.

    Attributes:
        text: meaning of the mark.
        shape: SVG in a box of 10 by 10.
        colour: CSS colour of the page.
    """

    text: str
    shape: str
    colour: str


@dataclass(frozen=True)
class Marks:
    """Colours of classes and marks of domains.

    Attributes:
        colours: colour by class index. Classes without a colour are grey.
    """

    colours: dict[int, str]
    shapes: dict[str, str]

    @classmethod
    def of(cls, arrays: Arrays) -> Marks:
        """Assign colours to the eight most frequent classes, and a mark to each domain."""
        labels, counts = np.unique(arrays["label"], return_counts=True)
        classes = sorted(labels[np.argsort(-counts, kind="stable")[: len(CLASS_COLOURS)]])
        in_domain = arrays["domain"][arrays["role"] == IN_DOMAIN]
        domains = [*dict.fromkeys(in_domain.tolist()), *dict.fromkeys(arrays["domain"].tolist())]
        shapes = {d: MARKERS[i % len(MARKERS)] for i, d in enumerate(dict.fromkeys(domains))}
        return cls({int(label): colour for label, colour in zip(classes, CLASS_COLOURS, strict=False)}, shapes)

    def key(self, classes: Sequence[str], arrays: Arrays) -> list[KeyItem]:
        """Return the entries of the key: classes, then domains."""
        numbers = {colour: f"var(--c{i})" for i, colour in enumerate(CLASS_COLOURS)}
        items = [KeyItem(classes[label], SHAPES["o"], numbers[colour]) for label, colour in self.colours.items()]
        if len(np.unique(arrays["label"])) > len(self.colours):
            items.append(KeyItem("other classes", SHAPES["o"], "var(--soft)"))
        roles = {str(d): str(r) for d, r in zip(arrays["domain"], arrays["role"], strict=True)}
        for domain, shape in self.shapes.items():
            items.append(KeyItem(f"{domain} ({ROLE_NAMES[roles[domain]]})", SHAPES[shape], "var(--ink)"))
        return items


def map_panel(
    embedding_map: EmbeddingMap, arrays: Arrays, classes: Sequence[str], marks: Marks, equal: str = "right"
) -> Panel:
    """Draw the map of one stage."""
    names = [shortened(name, 14) for name in classes]

    def draw(axes: Axes) -> None:
        for domain, shape in marks.shapes.items():
            for label in [None, *marks.colours]:
                colour = SOFT if label is None else marks.colours[label]
                labels = arrays["label"]
                of_class = ~np.isin(labels, list(marks.colours)) if label is None else labels == label
                mask = (arrays["domain"] == domain) & of_class
                if mask.any():
                    x, y = embedding_map.points[mask].T
                    axes.plot(x, y, shape, color=colour, markersize=3.4, alpha=0.55, markeredgewidth=0)
        if embedding_map.names is not None:
            _draw_names(axes, embedding_map.names, names, marks)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.margins(0.06)

    nearest = listed([f"{percent(share)} {ROLE_NAMES[role]}" for role, share in embedding_map.nearest.items()])
    share_note = f"; nearest class name {equal} for {nearest}" if nearest else ""
    alt = f"{STAGES[embedding_map.stage]}: {len(embedding_map.points)} images on two axes with "
    alt += f"{percent(embedding_map.explained)} of the variance{share_note}."
    return panel(f"map-{embedding_map.stage}", STAGES[embedding_map.stage], alt, draw, height=3.9)


def _draw_names(axes: Axes, points: NDArray[np.float64], names: Sequence[str], marks: Marks) -> None:
    halo = [withStroke(linewidth=2.6, foreground=PAPER)]
    for label, (x, y) in enumerate(points[: len(names)]):
        colour = marks.colours.get(label)
        if colour is None:
            axes.plot([x], [y], "P", color=SOFT, markersize=5, markeredgecolor=PAPER, markeredgewidth=0.6, zorder=4)
            continue
        axes.plot([x], [y], "P", color=colour, markersize=10, markeredgecolor=PAPER, markeredgewidth=1.2, zorder=5)
        axes.annotate(
            names[label],
            (x, y),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            fontweight="bold",
            color=INK,
            path_effects=halo,
            zorder=6,
        )
