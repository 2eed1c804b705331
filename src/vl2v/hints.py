"""Commands and options that messages suggest, in the form that the current command accepts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from vl2v_runtime.names import shown

FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*)(?: (\"[^\"]+\"|'[^']+'|[A-Z]{2,}|[0-9][\w.]*))?")
OTHER = re.compile(r"\b(?:vl2v [a-z]|docker |infinity_emb )")  # before options of another command
ELSEWHERE = " of vl2v distill"
NAMED = 20  # names that a message lists
ALTERNATIVE = re.compile(r"([;,] or )")
_forms: Mapping[str, str] = {}


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean 'X'?" with the known name that is most similar, ignoring case, or an empty string."""
    spelt = {other.casefold(): other for other in names}
    near = get_close_matches(name.casefold(), spelt, 1)
    return f"; did you mean '{shown(spelt[near[0]])}'?" if near else ""


def some_of(names: Sequence[str]) -> str:
    """Return the first names, separated by commas."""
    return ", ".join(map(shown, names[:NAMED])) + (f", ... ({len(names)} in all)" if len(names) > NAMED else "")


def resume_command(run: Path | str) -> str:
    """Return the command that resumes a run. Settings, cache, store and spending are recorded in its folder."""
    return f"vl2v distill --out {shlex.quote(str(run))} --resume"


@contextmanager
def advising(forms: Mapping[str, str]) -> Iterator[None]:
    """Let `fitting` replace options in this process.

    Args:
        forms: for each option of a setting that the current command lacks, its assignment if the command has
            ``--set``, such as ``data.skip_bad=true`` or ``data.split=``, else an empty string.
    """
    global _forms
    before, _forms = _forms, forms
    try:
        yield
    finally:
        _forms = before


def fitting(text: str, *, step: bool = False) -> str:
    """Return a text in which options that the current command lacks are replaced by what it accepts.

    An option of a setting becomes ``--set KEY=VALUE`` or, in a command without ``--set``, an option of ``vl2v
    distill``. Outside of a command, nothing changes.

    Args:
        step: whether the text is advice. Its alternatives with an option that the command cannot set are then left
            out, unless no other remains.
    """
    if not _forms or "--" not in text:
        return text
    parts = ALTERNATIVE.split(text)
    fit = [not step or not any(_forms.get(flag) == "" for flag, _ in _flags(part)) for part in parts[::2]]
    indices = [i for i, fits in enumerate(fit) if fits] if any(fit) else list(range(len(fit)))
    return "".join(("" if n == 0 else parts[2 * i - 1]) + _accepted(parts[2 * i]) for n, i in enumerate(indices))


def _flags(part: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Iterate over the options of the current command in a text."""
    other_command = OTHER.search(part)
    for match in FLAG.finditer(part, 0, other_command.start() if other_command else len(part)):
        if not part.startswith(ELSEWHERE, match.end()):
            yield match[1], match


def _accepted(part: str) -> str:
    """Replace the options of one alternative."""
    for flag, match in reversed(list(_flags(part))):
        if (form := _forms.get(flag)) is None:
            continue
        if form.endswith("="):
            part = f"{part[: match.start()]}--set {form}{match[2] or '...'}{part[match.end() :]}"
        else:
            new = f"--set {form}" if form else f"{flag}{ELSEWHERE}"
            part = part[: match.start()] + new + part[match.end(1) :]
    return part
