"""The augmentation of whole batches on tensors: crop, flip and colour as the paper's, and further changes of style.

All randomness is drawn beforehand, on the host, from one generator: `draw_plan` draws the augmentation of every image,
and `apply_plan` does it on the images' device without a loop over images and without waiting for the device. That
suits GPUs, where hundreds of images are varied at once. `vl2v.data.augment` varies one image at a time on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from vl2v.data.augment_settings import AugmentSettings
from vl2v.data.image_changes import CHANGES, PARAMETERS, choose, grey

TRIES = 10  # crops drawn until one fits, as RandomResizedCrop does; after that the whole image
RATIO = (3 / 4, 4 / 3)  # least and greatest width to height of a crop


@dataclass(frozen=True)
class Plan:
    """The augmentation of each of B images. All tensors are float32, except where another type is given.

    Attributes:
        affine: [B, 2, 3], crop and flip as `torch.nn.functional.affine_grid` takes them.
        colour: [B, 4], factors of brightness, contrast and saturation, and the shift of hue in turns.
        grey: [B], 1 where the colour goes, else 0.
        change: [B] int64, the position in `CHANGES` of what else happens, -1 for nothing.
        draws: [B, PARAMETERS], uniform in [0, 1), the strengths of that change.
        partner: [B] int64 in [0, B), the image whose amplitudes are mixed in.
    """

    affine: Tensor
    colour: Tensor
    grey: Tensor
    change: Tensor
    draws: Tensor
    partner: Tensor


def draw_plan(count: int, settings: AugmentSettings, generator: torch.Generator) -> Plan:
    """Draw the augmentation of `count` images.

    Args:
        count: B, at least 1.
        settings: the strengths.
        generator: on the CPU; the same state gives the same plan.

    Raises:
        ValueError: if the probabilities of `style` and `corrupt` add up to more than 1.
    """
    if settings.style + settings.corrupt > 1:
        raise ValueError(f"expected style + corrupt <= 1, found {settings.style} + {settings.corrupt}")

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    strength = torch.tensor([*[settings.jitter] * 3, min(settings.jitter, 0.5)])
    colour = (uniform(count, 4) * 2 - 1) * strength + torch.tensor([1.0, 1.0, 1.0, 0.0])
    change = choose(uniform(count), uniform(count), uniform(count), settings.style, settings.corrupt)
    return Plan(
        affine=_crops(uniform(TRIES, count, 2), uniform(count, 3), settings),
        colour=colour.clamp(min=-0.5),
        grey=(uniform(count) < settings.grayscale).float(),
        change=change,
        draws=uniform(count, PARAMETERS),
        partner=(uniform(count) * count).long(),
    )


def _crops(tries: Tensor, position: Tensor, settings: AugmentSettings) -> Tensor:
    """Return [B, 2, 3] crops with a random area, aspect and position: the first of the tries within the image."""
    area = settings.scale + (1 - settings.scale) * tries[..., 0]
    low, high = map(math.log, RATIO)
    ratio = torch.exp(low + (high - low) * tries[..., 1])
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=-1)  # [TRIES, B, 2], width and height
    fits = (sides <= 1).all(dim=-1)
    first = fits.long().argmax(dim=0)  # 0 where none fits
    chosen = sides[first, torch.arange(sides.shape[1])]
    width, height = torch.where(fits.any(dim=0)[:, None], chosen, 1.0).unbind(-1)
    affine = torch.zeros(len(width), 2, 3)
    affine[:, 0, 0] = torch.where(position[:, 2] < settings.flip, -width, width)
    affine[:, 1, 1] = height
    affine[:, 0, 2] = (position[:, 0] * 2 - 1) * (1 - width)
    affine[:, 1, 2] = (position[:, 1] * 2 - 1) * (1 - height)
    return affine


def apply_plan(pixels: Tensor, plan: Plan, size: int) -> Tensor:
    """Vary images as planned.

    Args:
        pixels: [B, 3, H, W] uint8.
        plan: of B images, on the CPU.
        size: side length of the result, in pixels.

    Returns:
        [B, 3, size, size] uint8, on the device of `pixels`.
    """
    device = pixels.device
    count = len(pixels)
    order = torch.argsort(plan.change, stable=True)
    amounts = torch.bincount(plan.change + 1, minlength=len(CHANGES) + 1).tolist()
    numbers = torch.cat([plan.affine.flatten(1), plan.colour, plan.grey[:, None], plan.draws], dim=1)
    numbers, indices = _move(numbers, device), _move(torch.stack([order, plan.partner]), device)
    affine, colour, grey_mask, draws = torch.split(numbers, [6, 4, 1, PARAMETERS], dim=1)
    grid = F.affine_grid(affine.view(-1, 2, 3), [count, 3, size, size], align_corners=False)
    images = F.grid_sample(pixels.float() / 255, grid, padding_mode="reflection", align_corners=False)
    images = _change(images, indices[0], indices[1], amounts, draws)
    images = _colour(images, colour, grey_mask)
    return (images * 255).round_().clamp_(0, 255).to(torch.uint8)


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _change(images: Tensor, order: Tensor, partner: Tensor, amounts: list[int], draws: Tensor) -> Tensor:
    """Apply each change to its images: `order` lists them by change, `amounts` has their numbers."""
    changed = images.clone()
    start = amounts[0]
    for change, amount in zip(CHANGES, amounts[1:], strict=True):
        if amount:
            rows = order[start : start + amount]
            others = images[partner[rows]] if change.partner else None
            changed[rows] = change.apply(images[rows], draws[rows], others)
        start += amount
    return changed


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of [B, 3, S, S] in [0, 1] by [B, 1, 1, 1] turns, in HSV."""
    red, green, blue = torch.split(images, 1, dim=1)
    value, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - least
    safe = chroma.clamp(min=1e-6)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    k = (_offsets(images.device) + sector + 6 * turns) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


@cache
def _offsets(device: torch.device) -> Tensor:
    """Where in the circle of hues red, green and blue stand, in sixths, as the formula from HSV to RGB counts them."""
    return torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1).to(device)


def _colour(images: Tensor, colour: Tensor, grey_mask: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue in this order, then the loss of colour."""
    bright, contrast, saturation, hue = (part.view(-1, 1, 1, 1) for part in colour.unbind(-1))
    images = (images * bright).clamp(0, 1)
    mean = grey(images).mean((2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 1)
    luma = grey(images)
    images = shift_hue((luma + (images - luma) * saturation).clamp(0, 1), hue)
    mask = grey_mask.view(-1, 1, 1, 1)
    return images * (1 - mask) + grey(images) * mask


@dataclass(frozen=True)
class MixPlan:
    """Which images of a batch are mixed, and how.

    Attributes:
        partner: [B] int64 in [0, B).
        share: [B] float32 in [0, 1], the image's own part of the result and of the target.
        box: [B, 4] float32 in [0, 1], left, top, right and bottom of the rectangle that comes from the partner; an
            empty one blends the two images instead.
    """

    partner: Tensor
    share: Tensor
    box: Tensor


def draw_mix(groups: int, count: int, mixup: float, cutmix: float, generator: torch.Generator) -> MixPlan:
    """Draw mixup or CutMix for `groups` batches of `count` images, each with partners of its own batch.

    Args:
        groups: how many batches lie one after another.
        count: images in each.
        mixup: both parameters of mixup's Beta distribution; 0 leaves it out.
        cutmix: likewise for CutMix. With both, each image gets one of them by the toss of a coin.
        generator: on the CPU.
    """
    total = groups * count
    permuted = torch.argsort(torch.rand(groups, count, generator=generator), dim=1)
    partner = (permuted + torch.arange(groups)[:, None] * count).flatten()
    coin = torch.rand(total, generator=generator) < 0.5
    cut = torch.full_like(coin, cutmix > 0) if not (mixup and cutmix) else coin
    blend, area = (_beta(total, alpha, generator) if alpha else torch.ones(total) for alpha in (mixup, cutmix))
    side = (1 - area).sqrt()
    centre = torch.rand(total, 2, generator=generator)
    box = torch.cat([centre - side[:, None] / 2, centre + side[:, None] / 2], dim=1).clamp(0, 1)
    box = torch.where(cut[:, None], box, 0.0)
    covered = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    return MixPlan(partner, torch.where(cut, 1 - covered, blend), box)


def _beta(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    """[count] of Beta(alpha, alpha), from two gamma draws."""
    gamma = torch._standard_gamma(torch.full((2, count), alpha), generator=generator).clamp(min=1e-12)
    return gamma[0] / gamma.sum(0)


def apply_mix(pixels: Tensor, plan: MixPlan) -> Tensor:
    """Mix images as planned.

    Args:
        pixels: [B, 3, S, S] uint8.
        plan: of B images.

    Returns:
        [B, 3, S, S] uint8.
    """
    device, side = pixels.device, pixels.shape[-1]
    numbers = _move(torch.cat([plan.share[:, None], plan.box], dim=1), device)
    others = pixels[_move(plan.partner, device)]
    share, left, top, right, bottom = (part.view(-1, 1, 1, 1) for part in numbers.unbind(-1))
    centres = (torch.arange(side, device=device) + 0.5) / side
    across, down = centres.view(1, 1, 1, side), centres.view(1, 1, side, 1)
    inside = (across > left) & (across < right) & (down > top) & (down < bottom)
    boxed = (right > left) & (bottom > top)
    blended = (pixels * share + others * (1 - share)).round_().to(torch.uint8)
    return torch.where(boxed, torch.where(inside, others, pixels), blended)
