"""Change the classes of a served student, in its folder and its exported files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from vl2v.commands.classes import add_classes, remove_classes
from vl2v.commands.new_classes import new_classes
from vl2v.errors import BudgetError
from vl2v.locations import StoragePaths
from vl2v.serve.answers import Price
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.teacher.base import Teacher
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v_runtime import Model


class RunEditor:
    """Changes the classes of a run for good; used from one thread.

    Args:
        run: the run's folder.
        places: where the store of purchased embeddings is.
        load: opens the exported model as it is now.
        budget: the most to spend over all edits; None leaves it to each.
    """

    def __init__(
        self, run: Path, places: StoragePaths, load: Callable[[], Model], budget: Decimal | None = None
    ) -> None:
        self._run, self._places, self.load = run, places, load
        self._budget, self._spent = budget, Decimal(0)
        self._teacher: Teacher | None = None

    def price(self, names: Sequence[str]) -> Price:
        """What adding these classes would cost; spends nothing.

        Raises:
            Vl2vError: if they cannot be added.
        """
        asked = new_classes(Student.load(self._run), names, (), (), self._teacher)
        if not isinstance(asked.teacher, FileTeacher):  # a file may get new texts, and is opened at once
            self._teacher = asked.teacher
        with closing(EmbeddingStore(self._places.store)) as store:
            quote = asked.quote(store)
        return Price(
            teacher=quote.teacher,
            prompts=list(asked.texts),
            known=quote.texts_known,
            cost=f"{quote.cost:f}",
            currency=quote.price.currency,
        )

    def add(self, names: Sequence[str], budget: Decimal) -> list[str]:
        """Buy and add classes.

        Args:
            names: the classes.
            budget: the most to spend on them.

        Returns:
            The names as they are known now.

        Raises:
            BudgetError: if all edits together would cost more than the service may spend.
            Vl2vError: see `vl2v.commands.classes.add_classes`.
        """
        if self._budget is not None and budget > (left := self._budget - self._spent):
            step = "start vl2v serve with a higher --budget"
            raise BudgetError(
                "The budget does not cover this.", expected=f"{left:f}", found=f"{budget:f}", next_step=step
            )
        student = add_classes(self._run, names, budget=budget, teacher=self._teacher, places=self._places)
        change = student.provenance[CHANGES][-1]
        self._spent += Decimal(change["cost"])
        return list(change["added"])

    def remove(self, name: str) -> None:
        """Know a class no more.

        Raises:
            StudentError: if no class would stay.
        """
        remove_classes(self._run, [name])
