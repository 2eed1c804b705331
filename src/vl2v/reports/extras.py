"""Tables of optional results: held-out classes and exported files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.page import TableBlock
from vl2v.reports.sheet import Sheet
from vl2v.words import NONE, count, listed, percent, size

UNSEEN = ("seen", "unseen", "harmonic", "alone")
WHO = {"student": "student", "adjusted": "student with offset", "zero_shot": "teacher"}


def unseen_table(content: Mapping[str, Any]) -> TableBlock:
    """Return the accuracy on held-out classes, which the student knows by their names only.

    Args:
        content: ``unseen_classes`` of `evaluation.json`.
    """
    rows, values, strong = [], [], []
    for row in content.get("domains", ()):
        for who, name in WHO.items():
            if accuracies := row.get(who):
                shares = [accuracies.get(column) for column in UNSEEN]
                rows.append((row["domain"], row["role"], name, *(percent(share) for share in shares)))
                values.append((row["domain"], row["role"], name, *shares))
    for role, means in content.get("means", {}).items():
        for who, name in WHO.items():
            shares = [(means.get(who) or {}).get(column) for column in UNSEEN]
            if any(share is not None for share in shares):
                strong.append(len(rows))
                rows.append(("mean", role.replace("_", "-"), name, *(percent(share) for share in shares)))
    heads = ("domain", "role", "model", "seen classes", "unseen classes", "harmonic mean", "unseen classes only")
    names = listed([str(name) for name in content.get("classes", ())])
    caption = f"Mean accuracy per class, with the held-out classes {names}"
    return TableBlock(
        caption, heads, rows, [Sheet.of("unseen_classes", ("domain", "role", "who", *UNSEEN), values)], strong
    )


def export_table(content: Mapping[str, Any], reference: Reference = LABELS) -> TableBlock:
    """Return the parity of each exported file with the student."""
    files: Mapping[str, Mapping[str, Any]] = content.get("files", {})
    columns = ("bytes", "images", "logits", "agreement", "accuracy", "student")
    rows = [
        (
            name,
            _shown(measured, "bytes", lambda value: size(int(value))),
            _shown(measured, "logits", lambda value: f"{value:.1e}"),
            _shown(measured, "agreement", percent),
            _shown(measured, "accuracy", percent),
            _shown(measured, "student", percent),
            _shown(measured, "images", count),
        )
        for name, measured in files.items()
    ]
    heads = (
        "file",
        "size",
        "greatest difference",
        "same class",
        reference.measure.removeprefix("top-1 "),
        f"{reference.measure.removeprefix('top-1 ')} of the student",
        "images",
    )
    values = [(name, *(measured.get(column) for column in columns)) for name, measured in files.items()]
    return TableBlock("Exported files and the student", heads, rows, [Sheet.of("export", ("file", *columns), values)])


def _shown(measured: Mapping[str, Any], key: str, words: Any) -> str:
    value = measured.get(key)
    return NONE if value is None else str(words(value))
