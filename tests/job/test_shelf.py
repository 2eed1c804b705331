from __future__ import annotations

import torch
from torch import nn

from vl2v.config import DistillConfig, MeasureConfig
from vl2v.method.loop import warmed_up
from vl2v.runs.folder import State
from vl2v.training.shelf import Shelf


def walk(shelf: Shelf, steps: int = 3) -> dict[str, nn.Parameter]:
    weights = {"w": nn.Parameter(torch.zeros(2))}
    shelf.begin(weights)
    for step, accuracy in zip(range(steps), (0.5, 0.9, 0.7), strict=False):
        with torch.no_grad():
            weights["w"].add_(1)
        if shelf.swad is not None:
            shelf.swad.update(step, weights)
            shelf.swad.end_segment(step, 1.0)
        shelf.validated(accuracy, weights)
    return weights


def test_every_set_of_weights_that_is_asked_for_is_there_and_no_other() -> None:
    shelf = Shelf(DistillConfig(weights="last"), MeasureConfig(weights=("best", "last"), wise_ft=(0.5, 1.0)))
    trained = shelf.trained(walk(shelf))
    assert trained.kept["w"].tolist() == [3, 3]
    assert {name: w["w"].tolist() for name, w in trained.beside.items()} == {"best": [2, 2], "wise-ft 0.5": [1.5, 1.5]}


def test_interpolated_weights_can_be_those_that_are_kept() -> None:
    shelf = Shelf(DistillConfig(weights="best", wise_ft=0.25), MeasureConfig(weights=("best",), wise_ft=(1.0,)))
    trained = shelf.trained(walk(shelf))
    assert trained.kept["w"].tolist() == [0.5, 0.5]
    assert {name: w["w"].tolist() for name, w in trained.beside.items()} == {"best": [2, 2], "wise-ft 1": [2, 2]}


def test_a_shelf_goes_on_from_its_state() -> None:
    settings = DistillConfig(weights="swad"), MeasureConfig(weights=("best",), wise_ft=(0.5,))
    whole = Shelf(*settings)
    weights = walk(whole)
    tensors, values = whole.state()
    again = Shelf(*settings)
    again.load_state(State(tensors, values))
    again.begin({"w": nn.Parameter(torch.full((2,), 9.0))})  # known already, and not overwritten
    a, b = whole.trained(weights), again.trained(weights)
    assert torch.equal(a.kept["w"], b.kept["w"])
    assert a.beside.keys() == b.beside.keys() == {"best", "wise-ft 0.5"}
    assert all(torch.equal(a.beside[name]["w"], b.beside[name]["w"]) for name in a.beside)


def test_the_learning_rate_rises_to_its_value() -> None:
    assert [warmed_up(1.0, step, 3) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert warmed_up(0.1, 0, 0) == 0.1
