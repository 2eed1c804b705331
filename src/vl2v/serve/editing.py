"""Add and remove classes of a served student, in its folder and its exported files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from vl2v.commands.classes import add_classes, home_of, remove_classes
from vl2v.commands.new_classes import new_classes
from vl2v.errors import BudgetError
from vl2v.formatting import exact
from vl2v.locations import StoragePaths
from vl2v.serve.schemas import Price
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.teacher.base import Teacher
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.purchase.store import EmbeddingStore


class RunEditor:
    """Adds and removes classes of a run permanently; used from one thread.

    Args:
        budget: maximum amount to spend over all edits; None for no limit in addition to that of each edit.
    """

    def __init__(self, run: Path, storage: StoragePaths, budget: Decimal | None) -> None:
        self._run, self._storage = run, storage
        self._budget, self._spent = budget, Decimal(0)
        self._teacher: Teacher | None = None

    def price(self, names: Sequence[str]) -> Price:
        """Return the price of adding classes; nothing is spent.

        Raises:
            Vl2vError: if the classes cannot be added.
        """
        request = new_classes(Student.load(self._run), names, (), (), self._teacher, home_of(self._run))
        if not isinstance(request.teacher, FileTeacher):  # a file may get new texts, so it is opened each time
            self._teacher = request.teacher
        with closing(EmbeddingStore(self._storage.store)) as store:
            quote = request.quote(store)
        return Price(
            teacher=quote.teacher,
            prompts=list(request.texts),
            known=quote.texts_known,
            cost=exact(quote.cost),
            currency=quote.price.currency,
        )

    def add(self, names: Sequence[str], budget: Decimal) -> list[str]:
        """Buy and add classes; return their names as added.

        Raises:
            BudgetError: if all edits together would exceed the budget of the service.
            Vl2vError: see `vl2v.commands.classes.add_classes`.
        """
        if self._budget is not None and budget > (remainder := self._budget - self._spent):
            step = "start vl2v serve with a higher --budget"
            raise BudgetError(
                "The budget does not cover this.", expected=exact(remainder), found=exact(budget), next_step=step
            )
        student = add_classes(self._run, names, budget=budget, teacher=self._teacher, storage=self._storage)
        change = student.provenance[CHANGES][-1]
        self._spent += Decimal(change["cost"])
        return list(change["added"])

    def remove(self, name: str) -> None:
        """Remove a class.

        Raises:
            StudentError: if it is the last class.
        """
        remove_classes(self._run, [name])
