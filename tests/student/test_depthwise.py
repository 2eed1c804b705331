from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from vl2v.student.backbones import from_module
from vl2v.student.depthwise import PaddedDepthwise, pad_depthwise
from vl2v.student.preprocess import Preprocess


@pytest.mark.parametrize("kernel", [3, 5, (5, 3)])
@pytest.mark.parametrize("side", [1, 2, 4, 9])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_outputs_and_gradients_agree(kernel: int, side: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    padding = (4, 4) if dilation == 2 else (2, 2)
    plain = nn.Conv2d(12, 12, kernel, stride, padding, dilation, groups=12)
    patched = copy.deepcopy(plain)
    pad_depthwise(patched)
    assert type(patched) is PaddedDepthwise
    images = torch.randn(3, 12, side, side).contiguous(memory_format=torch.channels_last)
    one, other = images.clone().requires_grad_(), images.clone().requires_grad_()
    expected, actual = plain(one), patched(other)
    torch.testing.assert_close(actual, expected)
    expected.square().sum().backward()
    actual.square().sum().backward()
    torch.testing.assert_close(other.grad, one.grad)
    for patched_parameter, its in zip(patched.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(patched_parameter.grad, its.grad)


def test_a_backbone_uses_them_with_the_same_weights_and_can_be_copied() -> None:
    module = timm.create_model("test_efficientnet", num_classes=0)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    preprocess = Preprocess(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    backbone = from_module(module, preprocess)
    actual = [part for part in backbone.module.modules() if isinstance(part, PaddedDepthwise)]
    assert actual
    assert all(part.groups == part.in_channels for part in actual)
    assert before.keys() == backbone.module.state_dict().keys()
    copied = copy.deepcopy(backbone.module).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(copied(images), backbone.module.eval()(images))
    assert sum(part is patched_parameter for part in copied.modules() for patched_parameter in actual) == 0
