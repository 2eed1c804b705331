"""Tables of optional results: held-out classes and exported files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vl2v.evaluation.reference import LABELS, Reference
from vl2v.formatting import NONE, count, listed, percent, size
from vl2v.reports.page import TableBlock
from vl2v.reports.sheet import Sheet

UNSEEN = ("seen", "unseen", "harmonic", "alone")
WHO = {"student": "student", "adjusted": "student with offset", "zero_shot": "teacher"}
SHOWN: Mapping[str, Callable[[Any], str]] = {  # measurements of an exported file
    "bytes": size,
    "logits": "{:.1e}".format,
    "agreement": percent,
    "accuracy": percent,
    "student": percent,
    "images": count,
}


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
        caption, heads, rows, [Sheet("unseen_classes", ("domain", "role", "who", *UNSEEN), values)], strong
    )


def export_table(content: Mapping[str, Any], reference: Reference = LABELS) -> TableBlock:
    """Return the parity of each exported file with the student."""
    files: Mapping[str, Mapping[str, Any]] = content.get("files", {})
    columns = ("bytes", "images", "logits", "agreement", "accuracy", "student")
    rows = [
        (name, *(NONE if parity.get(key) is None else words(parity[key]) for key, words in SHOWN.items()))
        for name, parity in files.items()
    ]
    measure = reference.measure.removeprefix("top-1 ")
    heads = ("file", "size", "greatest difference", "same class", measure, f"{measure} of the student", "images")
    values = [(name, *(parity.get(column) for column in columns)) for name, parity in files.items()]
    return TableBlock("Exported files and the student", heads, rows, [Sheet("export", ("file", *columns), values)])
