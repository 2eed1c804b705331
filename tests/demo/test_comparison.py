from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from vl2v.demo.comparison import Comparison, Spread
from vl2v.job.evaluation import IN_DOMAIN, OUT_OF_DOMAIN, Evaluation, Row


def evaluation(student: float, teacher: float = 0.5) -> Evaluation:
    return Evaluation((Row("a", IN_DOMAIN, 10, 0.9, teacher), Row("b", OUT_OF_DOMAIN, 20, student, teacher)))


def test_the_error_is_that_of_the_mean() -> None:
    spread = Spread.of([0.1, 0.2, 0.6])
    assert spread.mean == pytest.approx(0.3)
    deviation = math.sqrt((0.2**2 + 0.1**2 + 0.3**2) / 2)
    assert spread.error == pytest.approx(deviation / math.sqrt(3))
    assert str(spread) == "30.0 ± 15.3"
    assert str(Spread.of([0.5])) == "50.0"


@pytest.mark.parametrize(("ours", "sign"), [((0.7, 0.8), "+25.0"), ((0.2, 0.3), "-25.0")])
def test_the_verdict_says_what_was_found(ours: tuple[float, float], sign: str) -> None:
    found = {"erm": [evaluation(0.4), evaluation(0.6)], "adip": [evaluation(value) for value in ours]}
    comparison = Comparison.of(found)
    assert f"{sign} ± 11.2 points against ERM" in comparison.verdict()  # of 0.10 and 0.05, as a hypotenuse
    console = Console(file=io.StringIO(), width=100)
    console.print(comparison.table())
    assert "zero-shot teacher" in console.file.getvalue()  # type: ignore[attr-defined]
    assert json.loads(json.dumps(comparison.to_dict()))["seeds"] == 2
