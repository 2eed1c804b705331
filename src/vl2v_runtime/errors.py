"""Error of an exported model. Messages state what was expected, what was found, and what to do next."""

from __future__ import annotations

from vl2v_runtime.names import shortened

LONGEST = 1000  # characters of a line of a message


def short_lines(text: str) -> str:
    """Return a text with its overlong lines, which contain an overlong path or list, cut in the middle."""
    return "\n".join(shortened(line, LONGEST) for line in text.split("\n"))


def worded(problem: str, expected: str, found: str, next_step: str) -> str:
    """Return the text of a message, without empty parts, and with overlong lines cut; see `short_lines`."""
    parts = (("expected", expected), ("found", found), ("next", next_step))
    return short_lines("\n".join([problem, *(f"  {name}: {text}" for name, text in parts if text)]))


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
