from __future__ import annotations

import pytest
import torch

from vl2v.method.ema import Ema


def feed(ema: Ema, values: list[float], start: int = 0) -> Ema:
    for step, value in enumerate(values, start):
        ema.update(step, {"w": torch.tensor([value, 2 * value], dtype=torch.float64)})
    return ema


def test_the_average_agrees_with_a_computation_by_hand() -> None:
    average = feed(Ema(0.75), [1.0, 3.0, -2.0]).average()["w"]
    first = 0.75 * 1 + 0.25 * 3
    second = 0.75 * first + 0.25 * -2
    assert average.tolist() == pytest.approx([second, 2 * second])


def test_continuing_from_a_saved_state_changes_nothing() -> None:
    values = torch.rand(20, dtype=torch.float64).tolist()
    half, other = feed(Ema(0.9), values[:8]), Ema(0.9)
    other.load_state(*half.state())
    feed(other, values[8:], start=8)
    assert torch.equal(other.average()["w"], feed(Ema(0.9), values).average()["w"])


def test_weights_are_copied_in_and_out() -> None:
    ema, weights = Ema(0.5), {"w": torch.ones(2)}
    ema.update(0, weights)
    weights["w"] += 5
    ema.average()["w"].zero_()
    assert ema.average()["w"].tolist() == [1, 1]


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="update"):
        Ema().average()
