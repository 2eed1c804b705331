"""Whether threads can share a batch is tried once per backbone."""

from __future__ import annotations

import pytest
from accelerate import Accelerator
from torch import Tensor, nn

from vl2v.training.thread_count import can_shard


class Counted(nn.Sequential):
    calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        Counted.calls += 1
        output: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return output


@pytest.fixture
def backbone(monkeypatch: pytest.MonkeyPatch) -> Counted:
    monkeypatch.setattr(Counted, "calls", 0)
    return Counted(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))


def test_a_backbone_is_tested_once(backbone: Counted) -> None:
    accelerator = Accelerator(cpu=True)
    assert can_shard(backbone, 8, accelerator)
    tried = backbone.calls
    assert tried
    assert all(can_shard(backbone, 8, accelerator) for _ in range(2))
    assert backbone.calls == tried


def test_random_numbers_prevent_sharing() -> None:
    assert not can_shard(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)), 8, Accelerator(cpu=True))
