"""Old names of keywords of public functions still work, with a warning."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vl2v import api
from vl2v.errors import Vl2vError
from vl2v.locations import StoragePaths
from vl2v.renamed import KEYWORDS, old_keywords


@old_keywords
def public(first: int, *, storage: str = "default") -> tuple[int, str]:
    return first, storage


def test_an_old_keyword_warns_and_works() -> None:
    with pytest.warns(DeprecationWarning, match=r"places of public\(\) is now storage") as warned:
        assert public(1, places="mine") == (1, "mine")  # type: ignore[call-arg]
    assert warned[0].filename == __file__, "the warning names the caller"
    assert public(1, storage="mine") == (1, "mine")
    assert public(1) == (1, "default")
    with pytest.raises(TypeError, match="both storage and its old name places"):
        public(1, places="a", storage="b")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["quote", "distill", "report", "evaluate", "export", "quote_classes", "add_classes"])
def test_every_public_function_accepts_it(name: str, tmp_path: Path) -> None:
    function = getattr(api, name)
    parameters = inspect.signature(function).parameters
    assert KEYWORDS["places"] in parameters
    assert not KEYWORDS.keys() & parameters.keys()
    required: dict[str, Any] = {
        key: [] if key == "names" else tmp_path / "missing"
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
    }
    paths = StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite")
    with pytest.warns(DeprecationWarning, match="storage"), pytest.raises((Vl2vError, OSError)):
        function(**required, places=paths)


def test_the_old_name_of_the_saved_weights_works(monkeypatch: pytest.MonkeyPatch) -> None:
    from vl2v.benchmark import protocol, results, sweep, tabulate
    from vl2v.cli.benchmark import _tabulated

    class Grid:
        settings: ClassVar = {"data": {"root": "x"}}
        variants: ClassVar[dict[str, object]] = {}

    calls: list[list[str | None]] = []
    monkeypatch.setattr(protocol, "load_grid", lambda folder: (Grid, None))
    monkeypatch.setattr(sweep, "records_in", lambda folder: [])
    monkeypatch.setattr(results, "once", lambda records: ["a record"])
    monkeypatch.setattr(tabulate, "tabulate", lambda *_, **named: calls.append(named["weights"]))
    _tabulated([Path("x")], None, "validation", ["saved", "kept", "last"], False)
    assert calls == [[None, None, "last"]]
