from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from vl2v.demo.comparison import Comparison
from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN, DomainScore, Evaluation


def evaluation(student: float, teacher: float = 0.5) -> Evaluation:
    return Evaluation(
        (DomainScore("a", IN_DOMAIN, 10, 0.9, teacher), DomainScore("b", OUT_OF_DOMAIN, 20, student, teacher))
    )


@pytest.mark.parametrize(("ours", "sign"), [((0.7, 0.8), "+25.0"), ((0.2, 0.3), "-25.0")])
def test_the_verdict_states_the_difference_of_the_methods(ours: tuple[float, float], sign: str) -> None:
    evaluations = {"erm": [evaluation(0.4), evaluation(0.6)], "vl2v": [evaluation(value) for value in ours]}
    comparison = Comparison.of(evaluations)
    assert f"{sign} ± 11.2 points against ERM" in comparison.verdict()  # of 0.10 and 0.05, as a hypotenuse
    console = Console(file=io.StringIO(), width=100)
    console.print(comparison.table())
    assert "zero-shot teacher" in console.file.getvalue()  # type: ignore[attr-defined]
    assert json.loads(json.dumps(comparison.to_dict()))["seeds"] == 2


def test_one_seed_has_no_standard_error() -> None:
    comparison = Comparison.of({"erm": [evaluation(0.4)], "vl2v": [evaluation(0.7)]})
    assert "+30.0 points against ERM" in comparison.verdict()
    console = Console(file=io.StringIO(), width=100)
    console.print(comparison.table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "one seed" in text
    assert "±" not in text
    assert "nan" not in text
