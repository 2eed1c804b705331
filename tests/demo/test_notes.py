"""The output of the demo when several runs on the same images end."""

from __future__ import annotations

from recorders import NoteRecorder
from vl2v.demo.job import _Once


def test_repeated_notes_and_warnings_are_shown_once_and_titles_always() -> None:
    shown = NoteRecorder()
    notes = _Once(shown)
    for seed in (0, 1):
        advice = f"advice: distil. Teacher 7{seed}% correct"
        warnings = (f"warning: {3 + seed} images are broken", f"warning: {3 + seed} images are alike")
        for text in ("data: 4 domains, 12 classes", advice, *warnings):
            notes.note(f"kd, seed {seed}: {text}")
        notes.note(f"kd, seed {seed}")
    assert shown.lines == [
        "kd, seed 0: data: 4 domains, 12 classes",
        "kd, seed 0: advice: distil. Teacher 70% correct",
        "kd, seed 0: warning: 3 images are broken",
        "kd, seed 0: warning: 3 images are alike",
        "kd, seed 0",
        "kd, seed 1",
    ]
