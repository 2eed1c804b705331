"""The loss of a method has named parts. Their sum is minimised, and each is logged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from test_baselines import CONTEXT, batch
from torch import Tensor, nn

from vl2v.errors import TrainingError
from vl2v.evaluation.metrics import metrics_line
from vl2v.method.align import align
from vl2v.method.evaluation import Score
from vl2v.method.loop import Batch, total
from vl2v.method.loss import dual_parts
from vl2v.method.registry import METHODS
from vl2v.runs.run_files import MetricsLine, StateValues
from vl2v.tracking.run_tracking import values_of
from vl2v.training.parts import LossParts


@pytest.mark.parametrize(
    ("name", "columns", "settings", "parts"),
    [
        ("adip", 4, {}, ["image", "text"]),
        ("vl2v", 5, {}, ["image", "text", "scale"]),
        ("vl2v", 5, {"kl_weight": 0.1}, ["image", "text", "scale", "teacher"]),
        ("kd", 3, {}, ["labels", "teacher"]),
        ("miro", 4, {}, ["labels", "oracle"]),
        ("rise", 7, {}, ["teacher", "labels", "distance", "relative distance"]),
    ],
)
def test_every_method_names_the_parts_of_its_loss(
    name: str, columns: int, settings: dict[str, Any], parts: list[str]
) -> None:
    method = METHODS[name]
    context = replace(CONTEXT, settings=method.settings(**settings), texts=torch.randn(3, 2, 4))
    loss = method.objective(context)(torch.randn(4, columns), batch([0, 2, -1, 1]))
    assert isinstance(loss, dict)
    assert list(loss) == parts
    assert all(part.ndim == 0 for part in loss.values())
    assert float(total(loss)) == pytest.approx(sum(map(float, loss.values())))


def test_the_dual_loss_adds_up_as_it_did_before_it_had_parts() -> None:
    for seed in range(50):
        rows = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed))
        cosines = [nn.functional.normalize(rows[0], dim=-1) * nn.functional.normalize(x, dim=-1) for x in rows[1:]]
        image, text = (cosine.sum(-1).mean() for cosine in cosines)
        assert total(dual_parts(rows[0], rows[1], rows[2], 0.3)).equal(-(0.3 * image + (1 - 0.3) * text))


def shrinking(output: Tensor, batch: Batch) -> dict[str, Tensor]:
    return {"near": (output - batch.teacher_image).square().mean(), "small": 0.1 * output.square().mean()}


def test_the_mean_of_each_part_is_logged_with_the_loss_and_survives_a_resume() -> None:
    rows = [batch([0, 1, 2]) for _ in range(6)]
    rows = [replace(b, inputs=b.teacher_image * (i + 1)) for i, b in enumerate(rows)]
    parts, by_hand = LossParts(shrinking), LossParts(shrinking)
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    losses = align(layer, rows[:4], objective=parts, learning_rate=1e-2)
    sums = parts.sums(accelerator)
    assert sum(sums.values()) == pytest.approx(sum(losses), rel=1e-6)
    by_hand.load(sums)  # as in a state file
    for meter in (parts, by_hand):
        with torch.no_grad():
            assert isinstance(meter(layer(rows[4].inputs), rows[4]), Tensor)
    assert parts.sums(accelerator) == by_hand.sums(accelerator) != sums
    line = metrics_line("align", 3, losses, {"a": Score(0.5, 0.5, 3, 0.5)}, 0.1, parts=sums)
    assert line["parts"] == {name: value / 4 for name, value in sums.items()}
    assert MetricsLine.model_validate(line).parts == line["parts"]
    assert values_of(line)["loss/near"] == line["parts"]["near"]
    parts.clear()
    assert parts.sums(Accelerator(cpu=True)) == {}
    assert "parts" not in metrics_line("align", 3, losses, {"a": Score(0.5, 0.5, 3, 0.5)}, 0.1, parts={})


def test_the_parts_have_no_graph_and_do_not_synchronise() -> None:
    parts = LossParts(shrinking)
    output = torch.randn(3, 4, requires_grad=True)
    assert parts(output, batch([0, 1, 2])).requires_grad
    parts(output, batch([0, 1, 2]))
    assert not any(value.requires_grad for value in parts._sums.values())


@pytest.mark.parametrize(
    ("loss", "message"),
    [({}, "no part"), (torch.ones(3), r"shape \[3\]"), ({"a": torch.ones(()), "b": torch.ones(2)}, r"shape \[2\]")],
)
def test_a_loss_that_is_not_a_number_is_reported(loss: Any, message: str) -> None:
    rows = [batch([0, 1, 2])]
    rows = [replace(b, inputs=b.teacher_image) for b in rows]
    with pytest.raises(TrainingError, match=rf"(?s)expected: a scalar.*found: .*{message}"):
        align(nn.Linear(4, 4), rows, objective=lambda *_: loss)


def test_files_of_earlier_versions_have_no_parts() -> None:
    state = {"stage": "align", "step": 1, "digest": "d", "losses": [0.5], "metrics": 0}
    assert StateValues.model_validate(state).parts == {}


def test_one_number_has_no_parts() -> None:
    parts = LossParts(METHODS["erm"].objective(CONTEXT))
    parts(torch.randn(4, 3), batch([0, 2, 1, 1]))
    assert parts.sums(Accelerator(cpu=True)) == {}
