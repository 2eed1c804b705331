"""The purchases of a run that was copied, moved or made on another machine."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path

import pytest

from command_line import run_cli
from vl2v.locations import StoragePaths
from vl2v.reports.spending import Spending, spending
from vl2v.runs.storage import FILE, remember
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.purchase.ledger import Budget, PurchaseContext
from vl2v.teacher.purchase.store import EmbeddingStore


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that cost 0.30 USD."""
    folder, paths = tmp_path / "run", StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite")
    folder.mkdir()
    remember(folder, paths)
    card = TeacherCard("test:vendor", "1", 3, 1.0, Price(Decimal(100)), 4)
    store = EmbeddingStore(paths.store)
    context = PurchaseContext(store, Budget(Decimal(1)), card, str(folder.resolve()), "training")
    context.open_entry("image", 3, Decimal("0.30"))
    store.close()
    (folder / "spending.jsonl").write_text(json.dumps({"entry": "x/1", "cost": "0.30"}) + "\n")
    return folder


def paid(run: Path) -> Spending:
    return spending(run, {}, run.parent / "s.sqlite")


def test_a_copy_has_the_purchases_of_the_original(run: Path) -> None:
    assert (paid(run).paid, paid(run).note) == (Decimal("0.30"), "")
    copy = Path(shutil.copytree(run, run.parent / "copy"))
    assert paid(copy).paid == Decimal("0.30")
    assert f"lists its purchases under {run}" in paid(copy).note
    done = run_cli("ledger", str(copy))
    assert "0.30 USD" in done.stdout
    assert f"lists its purchases under {run}" in " ".join(done.stderr.split())


def test_a_run_of_another_machine_has_its_recorded_cost(run: Path) -> None:
    copy = Path(shutil.copytree(run, run.parent / "copy"))
    locations = json.loads((copy / FILE).read_text())
    (copy / FILE).write_text(json.dumps({key: value for key, value in locations.items() if "signature" not in key}))
    usage = paid(copy)
    assert usage.lines == ()
    assert "on another machine" in usage.note
    assert "they cost 0.30" in usage.note
    (copy / "spending.jsonl").unlink()
    assert "they cost" not in paid(copy).note
    (copy / "spending.jsonl").write_text("noise\n")
    assert "spending.jsonl is damaged" in paid(copy).note


def test_a_run_without_a_ledger_names_where_it_could_be(run: Path) -> None:
    (run.parent / "s.sqlite").unlink()
    (run / FILE).unlink()
    (run / "config.yaml").touch()
    done = run_cli("ledger", str(run), env={"XDG_DATA_HOME": str(run.parent / "none"), "HOME": str(run.parent)})
    assert done.returncode == 0
    assert "made elsewhere" in done.stderr
