"""Depthwise convolutions that train faster on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PaddedDepthwise(nn.Conv2d):
    """Depthwise convolution with explicit padding of feature maps that are smaller than the kernel.

    If oneDNN pads such feature maps, its backward pass takes up to three times as long. Explicit padding is only used
    while gradients are computed on a CPU. Outputs and gradients agree up to rounding.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, H', W']."""
        small = min(input.shape[-2:]) < max(self.kernel_size)
        if not (small and torch.is_grad_enabled() and input.device.type == "cpu") or isinstance(self.padding, str):
            return super().forward(input)
        down, across = self.padding
        padded = F.pad(input, (across, across, down, down))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def pad_depthwise(module: nn.Module) -> None:
    """Convert every zero-padded depthwise convolution of a module to `PaddedDepthwise`, in place."""
    for part in module.modules():
        # Only the exact class, since a subclass may have another forward pass.
        if type(part) is nn.Conv2d and part.groups == part.in_channels > 1 and part.padding_mode == "zeros":
            part.__class__ = PaddedDepthwise
