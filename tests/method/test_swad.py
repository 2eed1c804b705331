from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vl2v.errors import TrainingError
from vl2v.method.swad import LossValley

losses = st.lists(st.sampled_from([0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 2.0]), min_size=1, max_size=24)
windows = st.tuples(st.integers(1, 4), st.integers(1, 7), st.sampled_from([0.0, 0.3]))


def feed(valley: LossValley, losses: list[float], start: int = 0, length: int = 3) -> None:
    for segment, loss in enumerate(losses, start):
        for step in range(segment * length, (segment + 1) * length):
            valley.update(step, {"w": torch.tensor([float(step), step**2 % 7.0], dtype=torch.float64)})
        valley.end_segment((segment + 1) * length - 1, loss)


@given(losses, windows, st.integers(0, 23), st.sampled_from(["reset", "accumulate"]))
@settings(max_examples=60, deadline=None)
def test_continuing_from_a_saved_state_changes_nothing(
    losses: list[float], window: tuple[int, int, float], cut: int, segments: str
) -> None:
    uninterrupted, first, second = (LossValley(*window, segments=segments) for _ in range(3))  # type: ignore[arg-type]
    feed(uninterrupted, losses)
    feed(first, losses[:cut])
    second.load_state(*first.state())
    feed(second, losses[cut:], start=len(losses[:cut]))
    assert torch.equal(uninterrupted.average()["w"], second.average()["w"])
    assert (uninterrupted.converged_at, uninterrupted.dead_at, uninterrupted.threshold) == (
        second.converged_at,
        second.dead_at,
        second.threshold,
    )


@given(losses, windows)
@settings(max_examples=60, deadline=None)
def test_reading_the_average_changes_nothing(losses: list[float], window: tuple[int, int, float]) -> None:
    quiet, queried = LossValley(*window), LossValley(*window)
    feed(quiet, losses)
    for i, loss in enumerate(losses):
        feed(queried, [loss], start=i)
        queried.average()
    assert torch.equal(quiet.average()["w"], queried.average()["w"])


def test_before_convergence_the_last_segment_is_the_average() -> None:
    valley = LossValley()
    feed(valley, [3.0, 2.0])
    assert valley.converged_at is None
    assert valley.average()["w"][0] == 4.0


def test_weights_are_copied() -> None:
    valley, weights = LossValley(), {"w": torch.ones(2)}
    valley.update(0, weights)
    weights["w"] += 5
    valley.end_segment(0, 1.0)
    assert valley.average()["w"].tolist() == [1, 1]


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="update"):
        LossValley().end_segment(0, 1.0)
    with pytest.raises(ValueError, match="segment"):
        LossValley().average()


def test_a_validation_loss_that_is_not_a_number_ends_the_training() -> None:
    valley = LossValley()
    valley.update(0, {"w": torch.ones(2)})
    with pytest.raises(TrainingError, match="not finite at step 0"):
        valley.end_segment(0, float("nan"))
