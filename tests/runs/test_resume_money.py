"""A run that is continued with the printed command pays nothing twice and stays within its budget."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tiny_dataset import Bench, bench  # noqa: F401 - a fixture
from typer.testing import CliRunner

import vl2v
from vl2v.cli import app
from vl2v.errors import BudgetError, Interrupted
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.runs.folder import RunFolder
from vl2v.runs.storage import remember, storage_of
from vl2v.teacher.purchase.ledger import Ledger
from vl2v.teacher.purchase.store import EmbeddingStore

SETTINGS: dict[str, Any] = {
    "student": {"size": 32},
    "teacher": {"price_per_1000_images": "100", "price_per_1000_texts": "10"},
    "align": {"steps": 2},
    "distill": {"steps": 2, "checkpoint_every": 2},
    "batch_per_domain": 4,
    "device": "cpu",
    "workers": 0,
}
COST = Decimal("9.03")  # 90 images and 3 texts


def spent(store: Path) -> Decimal:
    with closing(EmbeddingStore(store)) as opened:
        return Ledger(opened).spent()


def stop_at_once() -> Callable[[], bool]:
    return lambda: True


@pytest.fixture
def default_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoragePaths]:
    """The default cache and store of the user, which no option of these tests states."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "usual" / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "usual" / "data"))
    storage = StoragePaths()
    assert tmp_path in storage.cache.parents
    yield storage
    assert not storage.store.exists()


def begin(bench: Bench, out: Path, storage: StoragePaths, budget: str = "9.03") -> str:
    """Stop a run after its first step and return the command that continues it."""
    with stop_when(stop_at_once()), pytest.raises(Interrupted) as caught:
        vl2v.distill(
            bench.data, bench.teacher, bench.student, out=out, held_out=["rose"], budget=budget, settings=SETTINGS,
            storage=storage, report=False,
        )  # fmt: skip
    return caught.value.next_step.removeprefix("continue: ")


@pytest.mark.slow
def test_the_printed_resume_command_pays_nothing_twice(
    bench: Bench, tmp_path: Path, default_storage: StoragePaths
) -> None:
    """Regression test: the message omitted --store, so the command paid everything again, above the budget."""
    out, own_storage = tmp_path / "my run", StoragePaths(tmp_path / "c", tmp_path / "mine" / "s.sqlite")
    command = begin(bench, out, own_storage)
    assert spent(own_storage.store) == COST
    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "-q"])
    assert done.exit_code == 0, done.stderr
    assert spent(own_storage.store) == COST
    assert not default_storage.cache.exists()
    done = CliRunner().invoke(app, ["ledger", str(out), "--json"])
    assert done.stdout.count('"cost"') > 0, "the ledger of the run's own store is shown"


@pytest.mark.slow
def test_another_store_does_not_get_another_budget(bench: Bench, tmp_path: Path, default_storage: StoragePaths) -> None:
    out = tmp_path / "run"
    begin(bench, out, StoragePaths(tmp_path / "c", tmp_path / "a.sqlite"), "10")
    other = ["distill", "--out", str(out), "--resume", "-q", "--store", str(tmp_path / "b.sqlite")]
    done = CliRunner().invoke(app, other)
    assert (done.exit_code, "9.03 of 10 spent" in done.stderr) == (5, True), done.stderr
    assert spent(tmp_path / "b.sqlite") == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(BudgetError, match=r"9\.03 of 12 spent"):
        vl2v.distill(
            out=tmp_path / "moved",
            resume=True,
            storage=StoragePaths(tmp_path / "c", tmp_path / "b.sqlite"),
            budget="12",
        )
    assert RunFolder(tmp_path / "moved").config().budget == 12, "a raised budget is the run's from now on"


def test_a_run_remembers_its_cache_and_store(tmp_path: Path, default_storage: StoragePaths) -> None:
    own_storage = StoragePaths(tmp_path / "c", tmp_path / "s.sqlite")
    assert storage_of(tmp_path) == storage_of(None) == default_storage
    remember(tmp_path, own_storage)
    assert storage_of(tmp_path, present=False) == own_storage
    assert storage_of(tmp_path, store=Path("x"), present=False) == StoragePaths(own_storage.cache, Path("x"))
    assert storage_of(tmp_path) == default_storage, "neither exists any more"
    own_storage.store.touch()
    assert storage_of(tmp_path) == StoragePaths(default_storage.cache, own_storage.store)
    for damaged in ("noise", "[]", "{}", '{"store": 1}'):
        (tmp_path / "places.json").write_text(damaged)
        assert storage_of(tmp_path, uses_store=False) == default_storage
