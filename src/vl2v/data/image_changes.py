"""Changes of style and corruptions of images, on batches of tensors: each image with strengths of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

PARAMETERS = 4  # uniform numbers that a change may use
LUMA = (0.299, 0.587, 0.114)
BLOCK = 8  # pixels, the side of JPEG's blocks
BLUR = 6  # pixels on each side that a blur reaches


@dataclass(frozen=True)
class Change:
    """One way to change images.

    Attributes:
        apply: from images [n, 3, S, S] in [0, 1], draws [n, PARAMETERS] in [0, 1) and partners to changed images.
        style: a change of style; otherwise a corruption.
        weight: how often it is drawn among its kind.
        partner: whether it needs other images, [n, 3, S, S].
    """

    name: str
    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    style: bool
    weight: int = 1
    partner: bool = False

    def of_pixels(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Change uint8 images [n, 3, S, S], with draws [n, PARAMETERS]; only for changes without a partner."""
        changed = self.apply(pixels.float() / 255, draws, None)
        return (changed * 255).round().clamp(0, 255).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """[B, 1, S, S], the brightness of [B, 3, S, S] as JPEG and PIL define it."""
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


@cache
def _sobel(device: torch.device) -> Tensor:
    """[2, 1, 3, 3], slopes across and down."""
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    return torch.stack([across, across.T])[:, None].to(device)


def _spread(draws: Tensor, column: int, low: float, high: float) -> Tensor:
    """[n, 1, 1, 1], one column of draws stretched to [low, high)."""
    return (low + (high - low) * draws[:, column]).view(-1, 1, 1, 1)


def _edges(images: Tensor, draws: Tensor, _: Tensor | None) -> Tensor:
    """Dark edges on white, like a pencil drawing."""
    smooth = F.avg_pool2d(F.pad(grey(images), (1, 1, 1, 1), mode="replicate"), 3, 1)
    slopes = F.conv2d(F.pad(smooth, (1, 1, 1, 1), mode="replicate"), _sobel(images.device))
    edge = slopes.square().sum(1, keepdim=True).sqrt()
    edge = edge / (edge.amax((2, 3), keepdim=True) + 1e-6)
    return (1 - (edge * _spread(draws, 0, 1.5, 4)).clamp(0, 1)).expand(-1, 3, -1, -1)


def _poster(images: Tensor, draws: Tensor, _: Tensor | None) -> Tensor:
    """Smooth areas of few, saturated colours, like a cartoon."""
    smooth = images
    for _step in range(2):
        smooth = F.avg_pool2d(F.pad(smooth, (2, 2, 2, 2), mode="replicate"), 5, 1)
    levels = _spread(draws, 0, 3, 7).floor()
    flat = (smooth * levels).round() / levels
    mean = flat.mean(1, keepdim=True)
    return (mean + (flat - mean) * _spread(draws, 1, 1, 2)).clamp(0, 1)


def _recolour(images: Tensor, draws: Tensor, _: Tensor | None) -> Tensor:
    """Channels in another order; half of the images inverted."""
    order = torch.argsort(draws[:, :3], dim=1)[:, :, None, None].expand_as(images)
    permuted = images.gather(1, order)
    return torch.where(_spread(draws, 3, 0, 1) < 0.5, 1 - permuted, permuted)


def _amplitude(images: Tensor, draws: Tensor, others: Tensor | None) -> Tensor:
    """Amplitudes of the spectrum mixed with another image's, phases kept (Xu et al., CVPR 2021)."""
    assert others is not None
    spectrum, partner = torch.fft.rfft2(images), torch.fft.rfft2(others)
    share = _spread(draws, 0, 0.3, 1)
    amplitude = spectrum.abs() * (1 - share) + partner.abs() * share
    mixed = spectrum * (amplitude / spectrum.abs().clamp(min=1e-8))
    result: Tensor = torch.fft.irfft2(mixed, s=images.shape[-2:])
    return result.clamp(0, 1)


def _blur(images: Tensor, draws: Tensor, _: Tensor | None) -> Tensor:
    """Gaussian blur of 0.5 to 2.5 pixels."""
    count, _channels, height, width = images.shape
    sigma = _spread(draws, 0, 0.5, 2.5).view(-1, 1)
    reach = torch.arange(-BLUR, BLUR + 1, device=images.device)
    kernel = torch.exp(-(reach**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = F.pad(images, (BLUR, BLUR, BLUR, BLUR), mode="reflect").view(1, count * 3, height + 2 * BLUR, -1)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=count * 3)
    return F.conv2d(flat, kernel[:, None, :, None], groups=count * 3).view(count, 3, height, width)


def _noise(images: Tensor, draws: Tensor, _: Tensor | None) -> Tensor:
    """Gaussian noise of deviation 0.03 to 0.2, from a fixed tile at a random position."""
    side = images.shape[-1]
    tile = _tile(images.shape[-2], side, images.device)
    start = (draws[:, :2] * side).long()
    down = start[:, 0, None] + torch.arange(images.shape[-2], device=images.device)
    across = start[:, 1, None] + torch.arange(side, device=images.device)
    noise = tile[:, down[:, :, None], across[:, None, :]].transpose(0, 1)
    return (images + noise * _spread(draws, 2, 0.03, 0.2)).clamp(0, 1)


@cache
def _tile(height: int, width: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2 * max(height, width), 2 * width, generator=generator).to(device)


def _darken(images: Tensor, draws: Tensor, _: Tensor | None) -> Tensor:
    """Another exposure: gamma of 0.5 to 2.5 and a gain of 0.4 to 1.2."""
    return (images.clamp(min=1e-4) ** _spread(draws, 0, 0.5, 2.5) * _spread(draws, 1, 0.4, 1.2)).clamp(0, 1)


def _rotate(images: Tensor, draws: Tensor, _: Tensor | None) -> Tensor:
    """Rotation by at most 30 degrees, the border mirrored."""
    angle = _spread(draws, 0, -math.pi / 6, math.pi / 6).flatten()
    cosine, sine, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    affine = torch.stack([cosine, -sine, none, sine, cosine, none], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _solarise(images: Tensor, draws: Tensor, _: Tensor | None) -> Tensor:
    """Inverts what is brighter than 0.4 to 0.9."""
    return torch.where(images > _spread(draws, 0, 0.4, 0.9), 1 - images, images)


def _blocks(images: Tensor, draws: Tensor, _: Tensor | None) -> Tensor:
    """Rounds the cosine transform of blocks of 8 by 8 pixels, as strong JPEG compression does."""
    height, width = images.shape[-2:]
    down, right = -height % BLOCK, -width % BLOCK
    padded = F.pad(images, (0, right, 0, down), mode="replicate")
    rows, columns = (height + down) // BLOCK, (width + right) // BLOCK
    cut = padded.view(-1, 3, rows, BLOCK, columns, BLOCK).transpose(3, 4)  # [n, 3, rows, columns, 8, 8]
    basis, steps = _cosines(images.device)
    step = _spread(draws, 0, 0.02, 0.12)[..., None, None] * steps
    spectrum = basis @ cut @ basis.T
    rounded = basis.T @ ((spectrum / step).round() * step) @ basis
    return rounded.transpose(3, 4).reshape(padded.shape)[..., :height, :width].clamp(0, 1)


@cache
def _cosines(device: torch.device) -> tuple[Tensor, Tensor]:
    """The orthonormal cosine transform [8, 8], and steps that grow with the frequency [8, 8]."""
    n = torch.arange(BLOCK, dtype=torch.float32)
    basis = torch.cos(math.pi * (n[None] + 0.5) * n[:, None] / BLOCK) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis.to(device), (1 + n[None] + n[:, None]).to(device)


def _pixelate(images: Tensor, draws: Tensor, _: Tensor | None) -> Tensor:
    """Blends in a copy at a third of the resolution, by half or more."""
    size = list(images.shape[-2:])
    small = F.interpolate(images, scale_factor=1 / 3, mode="bilinear", antialias=True)
    share = _spread(draws, 0, 0.5, 1)
    return images * (1 - share) + F.interpolate(small, size=size, mode="bilinear") * share


CHANGES = (
    Change("edges", _edges, style=True, weight=2),
    Change("poster", _poster, style=True),
    Change("recoloured", _recolour, style=True),
    Change("amplitude", _amplitude, style=True, partner=True),
    Change("blur", _blur, style=False),
    Change("noise", _noise, style=False),
    Change("darkness", _darken, style=False),
    Change("rotation", _rotate, style=False),
    Change("solarised", _solarise, style=False),
    Change("blocks", _blocks, style=False),
    Change("low resolution", _pixelate, style=False),
)


def _listed(style: bool) -> Tensor:
    """Positions in `CHANGES` of one kind, each as often as its weight says."""
    return torch.tensor([i for i, change in enumerate(CHANGES) for _ in range(change.weight) if change.style == style])


STYLES, CORRUPTIONS = _listed(True), _listed(False)


def choose(what: Tensor, of_style: Tensor, of_corruption: Tensor, style: float, corrupt: float) -> Tensor:
    """Which change each image gets, [B] int64: a position in `CHANGES`, -1 for none.

    Args:
        what: [B], uniform in [0, 1): whether it is a change of style, a corruption, or nothing.
        of_style: [B], uniform in [0, 1): which change of style it would be.
        of_corruption: [B], uniform in [0, 1): which corruption it would be.
        style: probability of a change of style.
        corrupt: probability of a corruption; the two add up to at most 1.
    """
    styled = STYLES[(of_style * len(STYLES)).long()]
    corrupted = CORRUPTIONS[(of_corruption * len(CORRUPTIONS)).long()]
    return torch.where(what < style, styled, torch.where(1 - what <= corrupt, corrupted, -1))
