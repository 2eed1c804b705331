"""Parse JSON from untrusted sources, with limits on size, depth and numbers.

The standard library accepts NaN, infinity, 1e400, duplicate keys and lone surrogates, and raises RecursionError for
deep nesting. Here, each of these raises a `JsonError`, which is a ValueError.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 32
MAX_CONTAINERS = 1_000_000  # objects and arrays: an empty one takes two bytes in a file and 64 in memory
MAX_DIGITS = 19  # of an integer; enough for counts, sizes and times in nanoseconds
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """The text is not JSON, or exceeds a limit. The message states what was found."""


def parse(
    content: str | bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH, allow_nan: bool = False
) -> Any:
    """Parse JSON from an untrusted source.

    Args:
        content: text, or UTF-8 bytes.
        max_bytes: maximum number of bytes or characters.
        max_depth: maximum nesting of objects and arrays.
        allow_nan: whether NaN and infinity are accepted, as Python writes them; for figures that are only displayed.

    Returns:
        Plain values. Numbers are finite unless `allow_nan`, and strings are valid Unicode.

    Raises:
        JsonError: if it is not JSON, or exceeds a limit.
    """
    if len(content) > max_bytes:
        raise JsonError(f"more than {max_bytes:,} bytes of JSON")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError(f"text that is not UTF-8 ({error.reason} at byte {error.start})") from error
    if text.count("[") + text.count("{") > MAX_CONTAINERS:
        raise JsonError(f"more than {MAX_CONTAINERS:,} objects and arrays")
    try:
        value = json.loads(
            text,
            parse_constant=float if allow_nan else _refuse_constant,
            parse_float=_finite,
            parse_int=_short,
            object_pairs_hook=_unique,
        )
    except RecursionError as error:
        raise JsonError(f"objects and arrays nested deeper than {max_depth}") from error
    except JsonError:
        raise
    except ValueError as error:
        raise JsonError(f"invalid JSON: {error}") from error
    _check_depth(value, max_depth)
    if SURROGATE.search(text):
        _check_strings(value)
    return value


def read(path: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Parse a file; see `parse`.

    Raises:
        JsonError: if it is not JSON, or exceeds a limit.
        FileNotFoundError: if it is missing.
        OSError: if it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise JsonError("a folder, a pipe or a device instead of the file")
    with path.open("rb") as handle:
        return parse(handle.read(max_bytes + 1), max_bytes=max_bytes)


def _refuse_constant(name: str) -> float:
    raise JsonError(f"{name}, which is not a number in JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise JsonError(f"the number {digits[:40]}, which is too large")
    return value


def _short(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise JsonError(f"an integer of {len(digits):,} characters")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise JsonError(f"the key {twice[:40]!r} twice in one object")
    return content


def _inside(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _check_depth(value: Any, limit: int) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [part for container in level for part in _inside(container) if isinstance(part, dict | list)]
        if not level:
            return
    raise JsonError(f"objects and arrays nested deeper than {limit}")


def _check_strings(value: Any) -> None:
    """Reject lone surrogates, which are not characters and cannot be printed or written."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise JsonError("half of a surrogate pair, which is not a character") from error
