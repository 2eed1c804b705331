"""What can go wrong with an exported model; each message says what was expected, what was found, and what to do."""

from __future__ import annotations


def worded(problem: str, expected: str, found: str, next_step: str) -> str:
    """A message as people read it; what is empty is left out."""
    parts = (("expected", expected), ("found", found), ("next", next_step))
    return "\n".join([problem, *(f"  {name}: {text}" for name, text in parts if text)])


class ModelError(ValueError):
    """An exported model is missing, broken, or does not support the operation.

    Args:
        problem: one sentence, what is wrong.
        expected: what would have been right.
        found: what stands there instead.
        next_step: what the user can do about it.
    """

    exit_code = 6  # what vl2v gives for a student that cannot be used

    def __init__(self, problem: str, *, expected: str = "", found: str = "", next_step: str = "") -> None:
        self.problem, self.expected, self.found, self.next_step = problem, expected, found, next_step
        super().__init__(worded(problem, expected, found, next_step))
