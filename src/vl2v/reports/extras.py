"""Tables of optional results: held-out classes and exported files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.page import TableBlock
from vl2v.reports.sheet import Sheet
from vl2v.words import NONE, count, listed, percent, size

UNSEEN = ("seen", "unseen", "harmonic", "alone")
WHO = {"student": "student", "zero_shot": "teacher"}


def unseen_table(content: Mapping[str, Any]) -> TableBlock:
    """Accuracy per class of held-out classes, that the student knows by their names alone.

    Args:
        content: ``unseen_classes`` of `evaluation.json`.
    """
    rows, values, strong = [], [], []
    for row in content.get("domains", ()):
        for who, name in WHO.items():
            if found := row.get(who):
                shares = [found.get(column) for column in UNSEEN]
                rows.append((row["domain"], row["role"], name, *(percent(share) for share in shares)))
                values.append((row["domain"], row["role"], name, *shares))
    for role, means in content.get("means", {}).items():
        for who, name in WHO.items():
            shares = [(means.get(who) or {}).get(column) for column in UNSEEN]
            if any(share is not None for share in shares):
                strong.append(len(rows))
                rows.append(("mean", role.replace("_", "-"), name, *(percent(share) for share in shares)))
    heads = ("domain", "role", "model", "seen classes", "unseen classes", "harmonic mean", "unseen alone")
    names = listed([str(name) for name in content.get("classes", ())])
    caption = f"Classes that were not used in training: {names}. Accuracy per class"
    return TableBlock(
        caption, heads, rows, [Sheet.of("unseen_classes", ("domain", "role", "who", *UNSEEN), values)], strong
    )


def export_table(content: Mapping[str, Any], reference: Reference = LABELS) -> TableBlock:
    """How near each exported file is to the student.

    Args:
        content: `export/export.json`.
        reference: what answers were compared with.
    """
    files: Mapping[str, Mapping[str, Any]] = content.get("files", {})
    columns = ("bytes", "images", "logits", "agreement", "accuracy", "student")
    rows = [
        (
            name,
            _shown(found, "bytes", lambda value: size(int(value))),
            _shown(found, "logits", lambda value: f"{value:.1e}"),
            _shown(found, "agreement", percent),
            _shown(found, "accuracy", percent),
            _shown(found, "student", percent),
            _shown(found, "images", count),
        )
        for name, found in files.items()
    ]
    heads = (
        "file",
        "size",
        "greatest difference",
        "same class",
        reference.measure.removeprefix("top-1 "),
        "the student's",
        "images",
    )
    values = [(name, *(found.get(column) for column in columns)) for name, found in files.items()]
    return TableBlock("Compared with the student", heads, rows, [Sheet.of("export", ("file", *columns), values)])


def _shown(found: Mapping[str, Any], key: str, words: Any) -> str:
    value = found.get(key)
    return NONE if value is None else str(words(value))
