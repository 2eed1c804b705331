"""Error of an exported model. Messages state what was expected, what was found, and what to do next."""

from __future__ import annotations

LONGEST = 1000  # characters of a line of a message
_HEAD, _TAIL = 600, 300


def shortened(text: str) -> str:
    """Return a text with its overlong lines, which contain an overlong path or list, cut in the middle."""
    lines = (ln if len(ln) <= LONGEST else f"{ln[:_HEAD]} ... {ln[-_TAIL:]}" for ln in text.split("\n"))
    return "\n".join(lines)


def worded(problem: str, expected: str, found: str, next_step: str) -> str:
    """Return the text of a message, without empty parts, and with overlong lines cut; see `shortened`."""
    parts = (("expected", expected), ("found", found), ("next", next_step))
    return shortened("\n".join([problem, *(f"  {name}: {text}" for name, text in parts if text)]))


class ModelError(ValueError):
    """An exported model is missing, broken, or does not support the operation.

    Args:
        problem: the problem, in one sentence.
        expected: what was expected.
        found: what was found instead.
        next_step: what the user can do.
    """

    exit_code = 6  # that of vl2v for a student that cannot be used

    def __init__(self, problem: str, *, expected: str = "", found: str = "", next_step: str = "") -> None:
        self.problem, self.expected, self.found, self.next_step = problem, expected, found, next_step
        super().__init__(worded(problem, expected, found, next_step))
