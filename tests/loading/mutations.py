"""Seeded mutations of a JSON document, as from an attacker, a bug or a defective disk."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

RAW = {  # represented by a placeholder, because no Python value is written like this
    "@nan": "NaN",
    "@inf": "-Infinity",
    "@1e400": "1e400",
    "@digits": "9" * 5000,
    "@deep list": "[" * 2000 + "]" * 2000,
    "@deep object": '{"a":' * 2000 + "1" + "}" * 2000,
    "@open": "[" * 100_000,
    "@surrogate": '"\\ud800"',
    "@half": '"a',
}
VALUES: tuple[Any, ...] = (
    *RAW,
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    3.5,
    -0.0,
    1e-320,
    1e300,
    -1e300,
    10**9,
    -(10**9),
    10**18,
    2**63,
    "",
    "x",
    "1",
    "x" * 5000,
    "/etc/passwd",
    "../../etc/passwd",
    "C:\\Windows\\win.ini",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x",
    "https://attacker.invalid/w.bin",
    "hf-hub:attacker/x",
    "local-dir:/etc",
    "<img src=x onerror=alert(1)>",
    "[bold]x[/bold]",
    "\x1b[31m",
    "a\nb",
    "\u202e",
    [],
    {},
    [[]],
    [1, [2, [3]]],
    [0.5] * 3,
    [1.0, 2.0],
    ["a", "a"],
    list(range(50)),
    {"a": 1},
    {"": None},
    {"__class__": "os.system", "args": ["touch PWNED"]},
    {"__reduce__": ["os.system", "touch PWNED"]},
)
KEYS = ("checkpoint_path", "pretrained", "url", "weights_only", "__init__", "", "x" * 3000, "format", "trust", "é")


def mutations(document: Any, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield mutated documents.

    Args:
        document: plain values.
        count: how many.
        seed: determines all choices.

    Yields:
        The change, for the message of a failing test, and the text.
    """
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        changed, done = copy.deepcopy(document), []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            changed, what = _mutated(changed, rng)
            done.append(what)
        yield f"{number}: {'; '.join(done)}"[:300], _text(changed)


def _mutated(document: Any, rng: random.Random) -> tuple[Any, str]:
    paths = list(_paths(document))
    # choose the depth first, so that long lists of numbers are not chosen almost always
    depth = rng.choice(sorted({len(path) for path in paths}))
    path = rng.choice([path for path in paths if len(path) == depth])
    value = copy.deepcopy(rng.choice(VALUES))
    if not path:
        return value, f"all = {value!r}"
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    key, action = path[-1], rng.choice(("set", "set", "set", "delete", "add", "swap", "scale"))
    if action == "delete":
        del parent[key]
    elif action == "add" and isinstance(parent, dict):
        parent[rng.choice(KEYS)] = value
    elif action == "add":
        parent.insert(key, value)
    elif action == "swap":
        other = document
        for step in rng.choice(paths):
            other = other[step]
        parent[key] = copy.deepcopy(other)
    elif action == "scale" and isinstance(parent[key], int | float):
        parent[key] *= rng.choice((-1, 0, 1e6, 1e-6, 1e30))
    elif action == "scale" and isinstance(parent[key], list):
        parent[key] = parent[key][: rng.choice((0, 1, -1))] if rng.random() < 0.5 else parent[key] * 2
    else:
        action, parent[key] = "set", value
    return document, f"{action} {'.'.join(map(str, path))} {value!r}"[:150]


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _paths(part, (*above, key))
    elif isinstance(value, list):
        for path, part in enumerate(value):
            yield from _paths(part, (*above, path))


def _text(document: Any) -> str:
    text = json.dumps(document)
    for mark, raw in RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text
