from __future__ import annotations

import torch
from torch import nn

from vl2v.method.evaluation import Score
from vl2v.method.loop import warmed_up
from vl2v.runs.folder import State
from vl2v.schema import DistillConfig, MeasureConfig
from vl2v.training.weights import WeightSelector


def walk(selector: WeightSelector, steps: int = 3) -> dict[str, nn.Parameter]:
    weights = {"w": nn.Parameter(torch.zeros(2))}
    selector.begin(weights)
    for step, accuracy in zip(range(steps), (0.5, 0.9, 0.7), strict=False):
        with torch.no_grad():
            weights["w"].add_(1)
        if selector.swad is not None:
            selector.swad.update(step, weights)
            selector.swad.end_segment(step, 1.0)
        selector.validated(Score(accuracy, 1.0, 10, macro=1 - accuracy), weights)
    return weights


def test_exactly_the_requested_sets_of_weights_are_saved() -> None:
    selector = WeightSelector(
        DistillConfig(weights="last"), MeasureConfig(weights=("best", "last"), wise_ft=(0.5, 1.0))
    )
    trained = selector.trained(walk(selector))
    assert trained.selected["w"].tolist() == [3, 3]
    assert {name: w["w"].tolist() for name, w in trained.alternatives.items()} == {
        "best": [2, 2],
        "wise-ft 0.5": [1.5, 1.5],
    }


def test_the_best_weights_are_those_of_the_metric() -> None:
    selector = WeightSelector(DistillConfig(weights="best", metric="macro"), MeasureConfig())
    assert selector.trained(walk(selector)).selected["w"].tolist() == [1, 1]


def test_interpolated_weights_can_be_selected() -> None:
    selector = WeightSelector(
        DistillConfig(weights="best", wise_ft=0.25), MeasureConfig(weights=("best",), wise_ft=(1.0,))
    )
    trained = selector.trained(walk(selector))
    assert trained.selected["w"].tolist() == [0.5, 0.5]
    assert {name: w["w"].tolist() for name, w in trained.alternatives.items()} == {"best": [2, 2], "wise-ft 1": [2, 2]}


def test_a_selector_continues_from_its_state() -> None:
    settings = DistillConfig(weights="swad"), MeasureConfig(weights=("best",), wise_ft=(0.5,))
    uninterrupted = WeightSelector(*settings)
    weights = walk(uninterrupted)
    tensors, values = uninterrupted.state()
    again = WeightSelector(*settings)
    again.load_state(State(tensors, values))
    again.begin({"w": nn.Parameter(torch.full((2,), 9.0))})  # already known, and not overwritten
    a, b = uninterrupted.trained(weights), again.trained(weights)
    assert torch.equal(a.selected["w"], b.selected["w"])
    assert a.alternatives.keys() == b.alternatives.keys() == {"best", "wise-ft 0.5"}
    assert all(torch.equal(a.alternatives[name]["w"], b.alternatives[name]["w"]) for name in a.alternatives)


def test_the_learning_rate_warms_up_to_its_value() -> None:
    assert [warmed_up(step, 3) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert warmed_up(0, 0) == 1.0
