"""Augmentation of batches of tiles: position and shape, style of drawing, and background.

Colours are in 0..1. Probabilities and ranges were chosen once, by looking at the results.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Marks:
    """Properties of the tiles of a batch, each [B] bool: one colour, photograph, opaque background."""

    mono: Tensor
    photo: Tensor
    opaque: Tensor


def _uniform(count: int, low: float, high: float) -> Tensor:
    return torch.rand(count) * (high - low) + low


def _each(values: Tensor) -> Tensor:
    """Reshape [B] to [B, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)


def _pick(count: int, chance: float) -> Tensor:
    return torch.rand(count) < chance


def placed(tiles: Tensor, opaque: Tensor, side: int) -> Tensor:
    """Move, rotate, stretch and bend tiles [B, 4, T, T] into frames [B, 4, side, side]."""
    count = len(tiles)
    size = torch.exp(_uniform(count, -0.75, 0.2))  # of the frame: 0.47 to 1.2
    size = torch.where(opaque, torch.exp(_uniform(count, 0.0, 0.6)), size)
    aspect = torch.exp(_uniform(count, -0.18, 0.18))
    angle = torch.randn(count) * 0.15
    angle = torch.where(_pick(count, 0.06), _uniform(count, -1.2, 1.2), angle)
    flip = torch.where(_pick(count, 0.5), -1.0, 1.0)
    shear = torch.randn(count) * 0.08
    room = (size - 1).abs() * 0.8 + 0.03
    shift = (torch.rand(count, 2) * 2 - 1) * room.unsqueeze(1)
    wide, high = flip / (size * aspect), aspect / size
    cosine, sine = angle.cos(), angle.sin()
    theta = torch.stack([
        torch.stack([cosine * wide, (shear - sine) * wide, -shift[:, 0] / size], 1),
        torch.stack([sine * high, cosine * high, -shift[:, 1] / size], 1),
    ], 1)  # fmt: skip
    grid = F.affine_grid(theta, [count, 4, side, side], align_corners=False)
    bend = torch.randn(count, 2, 5, 5) * _each(torch.rand(count) ** 2 * 0.09)
    grid = grid + F.interpolate(bend, (side, side), mode="bicubic").permute(0, 2, 3, 1)
    return F.grid_sample(tiles, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def edges(pictures: Tensor) -> Tensor:
    """Return the gradient magnitude of pictures [B, C, S, S]: [B, 1, S, S], from 0 to about 1."""
    around = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    across = around[:, :, 1:-1, 2:] - around[:, :, 1:-1, :-2]
    down = around[:, :, 2:, 1:-1] - around[:, :, :-2, 1:-1]
    return across.square_().add_(down.square_()).amax(dim=1, keepdim=True).sqrt_()


def as_lines(pictures: Tensor, smooth: Tensor) -> Tensor:
    """Return pencil drawings [B, 4, S, S] of premultiplied pictures: dark lines, transparent elsewhere.

    Args:
        pictures: [B, 4, S, S].
        smooth: [B] bool, pictures whose fine texture does not become lines.
    """
    count = len(pictures)
    calm = pictures.clone()
    rows = (smooth | _pick(count, 0.4)).nonzero().flatten()
    calm[rows] = F.avg_pool2d(calm[rows], 3, 1, 1)
    rows = smooth.nonzero().flatten()
    calm[rows] = F.avg_pool2d(calm[rows], 3, 1, 1)
    ink = ((edges(calm) - _each(_uniform(count, 0.03, 0.12))) * _each(_uniform(count, 2.0, 6.0))).clamp(0, 1)
    rows = _some(ink, torch.full((count,), 0.3))
    thin = F.pad(-F.max_pool2d(-ink[rows], 2, 1, 0), (0, 1, 0, 1))
    ink[rows] = (thin * 1.6).clamp(max=1)
    rows = _some(ink, torch.full((count,), 0.12))
    ink[rows] = F.max_pool2d(ink[rows], 3, 1, 1)
    ink = ink * _each(_uniform(count, 0.55, 1.0))
    tone = _each(torch.rand(count) ** 3 * 0.5)
    return torch.cat([(tone * ink).expand(-1, 3, -1, -1), ink], dim=1)


def _inked(pictures: Tensor) -> Tensor:
    """Thicken or thin drawings in one colour, and change the colour."""
    count = len(pictures)
    shape = pictures[:, 3:]
    choice = torch.rand(count)
    shape = shape.clone()
    rows = (choice < 0.15).nonzero().flatten()
    shape[rows] = F.max_pool2d(shape[rows], 3, 1, 1)
    rows = (choice > 0.92).nonzero().flatten()
    shape[rows] = -F.max_pool2d(-shape[rows], 3, 1, 1) * 0.7 + shape[rows] * 0.3
    colour = torch.rand(count, 3)
    dark = torch.rand(count, 1)
    colour = torch.where(dark < 0.55, torch.rand(count, 1) * 0.15, torch.where(dark < 0.75, colour * 0.4, colour))
    return torch.cat([shape * colour.view(count, 3, 1, 1), shape], dim=1)


def drawn(pictures: Tensor, marks: Marks) -> tuple[Tensor, Tensor]:
    """Change the style of pictures [B, 4, S, S]; return also [B] bool, which of them consist of lines."""
    count = len(pictures)
    result = pictures.clone()
    mono = marks.mono.nonzero().flatten()
    result[mono] = _inked(pictures[mono])
    lines = torch.where(marks.mono, torch.rand(count) < 0.22, torch.rand(count) < 0.27)
    chosen = lines.nonzero().flatten()
    if len(chosen):
        result[chosen] = as_lines(pictures[chosen], marks.photo[chosen])
    return result, lines


def behind(count: int, side: int, scenery: Tensor, pale: Tensor) -> Tensor:
    """Return backgrounds [B, 3, side, side]: white, plain, graded, textured, or scenery, except where `pale` [B]."""
    choice = torch.rand(count)
    choice = torch.where(pale, choice * 0.72, choice)
    plain = torch.rand(count, 3, 1, 1)
    plain = torch.where(_each(pale | _pick(count, 0.4)), 1 - plain * 0.35, plain)
    other = (plain + torch.randn(count, 3, 1, 1) * 0.25).clamp(0, 1)
    ramp = torch.linspace(0, 1, side).view(1, 1, 1, side).expand(count, 1, side, side)
    ramp = torch.where(_each(_pick(count, 0.5)), ramp, ramp.transpose(2, 3))
    grain = F.interpolate(torch.randn(count, 1, 16, 16), (side, side), mode="bilinear") * 0.08
    graded = plain * ramp + other * (1 - ramp)
    texture = (plain + grain + torch.randn(count, 1, side, side) * 0.04).clamp(0, 1)
    ground = scenery
    soft = F.interpolate(F.avg_pool2d(scenery, 8), (side, side), mode="bilinear")
    ground = torch.where(_each(_pick(count, 0.25)), soft, ground)
    for limit, kind in ((0.72, texture), (0.64, graded), (0.55, plain.expand(-1, -1, side, side))):
        ground = torch.where(_each(choice < limit), kind, ground)
    return torch.where(_each(choice < 0.42), torch.ones(()), ground)


def _painted(images: Tensor) -> Tensor:
    """Imitate brush strokes by morphological closing and opening in a random order, and add canvas grain."""
    count = len(images)

    def opened(values: Tensor, size: int) -> Tensor:
        return F.max_pool2d(-F.max_pool2d(-values, size, 1, size // 2), size, 1, size // 2)

    size = 3 if torch.rand(()) < 0.6 else 5
    patches = -opened(-opened(images, size), size)
    grain = F.interpolate(torch.randn(count, 1, 48, 48), images.shape[-2:], mode="bilinear")
    return (patches * (1 + grain * _each(_uniform(count, 0.0, 0.12)))).clamp(0, 1)


def _some(images: Tensor, chance: Tensor) -> Tensor:
    """Draw rows, each with the probability `chance`."""
    return (torch.rand(len(images)) < chance).nonzero().flatten()


def finished(images: Tensor, marks: Marks) -> Tensor:
    """Change the colours and surfaces of whole images [B, 3, S, S]; the result is in 0..1."""
    count = len(images)
    rich = ~marks.mono
    gain, lift = _each(_uniform(count, 0.7, 1.3)), _each(torch.randn(count) * 0.06)
    tinted = images * gain * (1 + torch.randn(count, 3, 1, 1) * 0.08) + lift
    images = torch.where(_each(_pick(count, 0.6)), tinted, images).clamp(0, 1)
    everyone = torch.ones(count)
    rows = _some(images, rich * 0.22)
    if len(rows):
        images[rows] = _painted(images[rows])
    rows = _some(images, rich * 0.25)
    grey = images[rows].mean(dim=1, keepdim=True)
    images[rows] = (grey + (images[rows] - grey) * _each(_uniform(len(rows), 0.0, 1.8))).clamp(0, 1)
    rows = _some(images, rich * 0.1)
    levels = _each(torch.randint(2, 6, (len(rows),)).float())
    images[rows] = (images[rows] * levels).round() / levels
    rows = _some(images, rich * 0.12)  # random colours
    images[rows] = images[rows][:, torch.randperm(3)]
    rows = _some(images, everyone * 0.1)
    images[rows] = images[rows].mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    rows = _some(images, everyone * 0.05)
    images[rows] = 1 - images[rows]
    rows = _some(images, everyone * 0.15)
    images[rows] = F.avg_pool2d(images[rows], 3, 1, 1, count_include_pad=False)
    rows = _some(images, everyone * 0.1)
    images[rows] = images[rows] + torch.randn_like(images[rows]) * 0.05
    return images.clamp(0, 1)


def varied(tiles: Tensor, marks: Marks, scenery: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return training images [B, 3, side, side] in 0..1, and [B] bool, which of them still resemble photographs.

    Args:
        tiles: [B, 4, T, T], premultiplied.
        marks: their properties.
        scenery: [B, 3, side, side] photographs for the background.
        side: S in pixels.
    """
    pictures = placed(tiles, marks.opaque, side)
    pictures, lines = drawn(pictures, marks)
    slight = (pictures[:, 3].mean(dim=(1, 2)) < 0.12) | marks.mono
    ground = behind(len(tiles), side, scenery, slight | lines)
    light = (
        (pictures[:, :3].amax(dim=(1, 2, 3)) > 0.75) & marks.mono & ~lines
    )  # a light drawing needs a dark background
    ground = torch.where(_each(light), ground * 0.35, ground)
    return finished(pictures[:, :3] + ground * (1 - pictures[:, 3:]), marks), marks.photo & ~lines
