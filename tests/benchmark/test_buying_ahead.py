from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from tiny_dataset import Bench
from tiny_grid import PRICED, opened, tiny_grid

from vl2v.benchmark.purchase import PurchasedTeacher, buy_ahead, copy_once
from vl2v.benchmark.sweep import Sweep
from vl2v.errors import BudgetError, TeacherError
from vl2v.progress import Silent
from vl2v.teacher.purchase.ledger import Ledger
from vl2v.teacher.purchase.store import EmbeddingStore

WHOLE = "0.0093"  # 90 images and 3 prompts at 0.10 USD per 1000


def entries(sweep: Sweep) -> list[tuple[str, int]]:
    with closing(EmbeddingStore(sweep.storage.store)) as store:
        return [(entry.kind, entry.queries) for entry in Ledger(store).entries()]


def test_everything_is_bought_once_within_one_budget(bench: Bench, tmp_path: Path) -> None:
    sweep = opened(bench, tmp_path / "grid", tiny_grid(bench, seeds=(0, 1), change=PRICED), WHOLE)
    purchase = buy_ahead(sweep, Silent())
    assert sweep.spent() == Decimal(WHOLE)
    assert sum(count for kind, count in entries(sweep) if kind == "image") == 90
    assert (len(purchase.images[0]), len(purchase.texts)) == (90, 3)
    assert len(purchase.covers) == 2 * 2 * 3  # by seed, by whether the method queries the teacher, by target
    before = entries(sweep)
    assert buy_ahead(sweep, Silent()).key == purchase.key
    assert entries(sweep) == before


def test_a_budget_below_the_whole_grid_buys_nothing(bench: Bench, tmp_path: Path) -> None:
    grid = tiny_grid(bench, change=PRICED | {"teacher": PRICED["teacher"] | {"zero_shot": False}})
    sweep = opened(bench, tmp_path / "grid", grid, "0.0060")  # enough for any job, of 48 images, but not for all
    with pytest.raises(BudgetError, match="of the whole grid"):
        buy_ahead(sweep, Silent())
    assert entries(sweep) == []


def test_earlier_spending_counts(bench: Bench, tmp_path: Path) -> None:
    grid = tiny_grid(bench, change=PRICED)
    narrow = grid.model_copy(
        update={"targets": ("rose",), "settings": grid.settings | {"teacher": _without_zero(grid)}}
    )
    first = opened(bench, tmp_path / "grid", narrow, WHOLE)
    buy_ahead(first, Silent())
    assert first.spent() == Decimal("0.0051")
    with pytest.raises(BudgetError, match=r"0\.0051 of 0\.0092 spent"):
        buy_ahead(opened(bench, tmp_path / "grid", grid, "0.0092"), Silent())
    sweep = opened(bench, tmp_path / "grid", grid, WHOLE)
    buy_ahead(sweep, Silent())
    assert sweep.spent() == Decimal(WHOLE)


def _without_zero(grid: object) -> dict[str, object]:
    return {**grid.settings["teacher"], "zero_shot": False}  # type: ignore[attr-defined]


def test_a_copy_of_the_embeddings_is_a_separate_store(bench: Bench, tmp_path: Path) -> None:
    sweep = opened(bench, tmp_path / "grid")
    purchase = buy_ahead(sweep, Silent())
    file = tmp_path / "copy" / "a.sqlite"
    purchase.write(sweep.storage.store, file)
    assert [p.name for p in file.parent.iterdir()] == ["a.sqlite"], "one file, which can be copied"
    copy_once(file, tmp_path / "there" / "a.sqlite")
    with closing(EmbeddingStore(sweep.storage.store)) as a, closing(EmbeddingStore(tmp_path / "there/a.sqlite")) as b:
        pairs = [(s.images(purchase.card, purchase.images[0]), s.texts(purchase.card, purchase.texts)) for s in (a, b)]
    np.testing.assert_array_equal(pairs[0][0], pairs[1][0])
    np.testing.assert_array_equal(pairs[0][1], pairs[1][1])


def test_a_teacher_whose_answers_are_all_stored_is_not_queried(bench: Bench, tmp_path: Path) -> None:
    teacher = opened(bench, tmp_path / "grid").teacher
    assert teacher is not None
    answered = PurchasedTeacher(teacher.describe())
    assert answered.describe() == teacher.describe()
    with pytest.raises(TeacherError, match="run the benchmark again"):
        answered.embed_images([b"new"])
    with pytest.raises(TeacherError, match="1 prompts"):
        answered.embed_texts(["new"])
