"""Names that the documentation used before still work, with a warning."""

from __future__ import annotations

import importlib
import sys

import pytest

from vl2v.locations import StoragePaths
from vl2v.renamed import MODULES


@pytest.mark.slow  # imports torch
@pytest.mark.parametrize("old", sorted(MODULES))
def test_an_old_module_warns_and_works(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=MODULES[old]):
        module = importlib.import_module(old)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def test_names_can_be_imported_from_their_new_module() -> None:
    sys.modules.pop("vl2v.job.prepare", None)
    with pytest.warns(DeprecationWarning, match="planning"):
        module = importlib.import_module("vl2v.job.prepare")
    assert module.Places is StoragePaths
    assert module.list_folder is importlib.import_module("vl2v.planning.prepare").list_folder


def test_other_names_are_unknown() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("vl2v.job.quoting")
