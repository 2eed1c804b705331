"""Modules and keywords that the documentation named until 0.1 and that have other names now.

The old names work for one release, with a `DeprecationWarning`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MODULES = {
    "vl2v.job": "vl2v.commands",
    "vl2v.job.evaluation": "vl2v.evaluation.evaluation",
    "vl2v.job.prepare": "vl2v.planning.prepare",
    "vl2v.job.run": "vl2v.commands.distill",
    "vl2v.task": "vl2v.data",
    "vl2v.task.folder": "vl2v.data.folder",
    "vl2v.teacher.ledger": "vl2v.teacher.purchase.ledger",
    "vl2v.teacher.opening": "vl2v.teacher.registry",
    "vl2v.teacher.store": "vl2v.teacher.purchase.store",
}
NAMES = {
    ("vl2v.job.evaluation", "Row"): ("vl2v.evaluation.evaluation", "DomainScore"),
    ("vl2v.job.prepare", "Places"): ("vl2v.locations", "StoragePaths"),
    ("vl2v.job.run", "quote_run"): ("vl2v.commands.quote", "quote_run"),
}
KEYWORDS = {"places": "storage"}


class _Renamed(MetaPathFinder, Loader):
    """Finds a module under its old name, and warns."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        old, new = module.__name__, MODULES[module.__name__]
        warnings.warn(f"{old} is now {new}; the next release removes the old name", DeprecationWarning, stacklevel=2)

        def get(name: str) -> Any:
            home, now = NAMES.get((old, name), (new, name))
            try:
                return getattr(importlib.import_module(home), now)
            except AttributeError:
                raise AttributeError(f"module '{old}' has no attribute '{name}'") from None

        module.__dict__["__getattr__"] = get


def install() -> None:
    """Let old names be imported."""
    if not any(isinstance(finder, _Renamed) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Renamed())  # before an empty folder that an update left


def old_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a public function, so that it accepts the old names of its keywords (see `KEYWORDS`), and warns."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        for old in KEYWORDS.keys() & kwargs.keys():
            new = KEYWORDS[old]
            if new in kwargs:
                raise TypeError(f"{function.__name__}() got both {new} and its old name {old}")
            text = f"the keyword {old} of {function.__name__}() is now {new}; the next release removes the old name"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            kwargs[new] = kwargs.pop(old)
        return function(*args, **kwargs)

    return inner
