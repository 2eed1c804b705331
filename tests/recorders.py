"""Progress callbacks that record what they receive."""

from __future__ import annotations

from vl2v.progress import Silent


class NoteRecorder(Silent):
    """Records the notes in `lines`; warnings become Python warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


class MessageRecorder(NoteRecorder):
    """Records the notes and warnings in `lines`."""

    def warn(self, text: str) -> None:
        self.lines.append(text)
