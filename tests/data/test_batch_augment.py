from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lab_parts.batch_augment import Plan, apply_mix, apply_plan, draw_mix, draw_plan, shift_hue
from vl2v.data.augment_settings import AugmentSettings
from vl2v.data.image_changes import CHANGES, CORRUPTIONS, PARAMETERS, STYLES

STILL = AugmentSettings(scale=1, flip=0, jitter=0, grayscale=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 6, side: int = 40) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator(1))


def test_without_augmentation_no_pixel_changes() -> None:
    plan = draw_plan(6, STILL, generator())
    square = Plan(**{**vars(plan), "affine": torch.eye(2, 3).expand(6, 2, 3).contiguous()})
    assert torch.equal(apply_plan(images(), square, 40), images())


def test_the_same_generator_gives_the_same_images_and_another_gives_others() -> None:
    settings = AugmentSettings(style=0.5, corrupt=0.5)
    first, again, other = (apply_plan(images(), draw_plan(6, settings, generator(s)), 32) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (6, 3, 32, 32)
    assert first.dtype == torch.uint8


def test_crops_have_the_areas_aspects_and_positions_of_random_resized_crop() -> None:
    affine = draw_plan(20000, AugmentSettings(scale=0.5), generator()).affine
    width, height = affine[:, 0, 0].abs(), affine[:, 1, 1]
    area = width * height
    assert area.min() >= 0.5
    assert area.max() <= 1
    assert (affine[:, 0, 2].abs() <= 1 - width + 1e-6).all()  # within the image
    assert (affine[:, 1, 2].abs() <= 1 - height + 1e-6).all()
    ratio = width / height
    assert ratio.min() >= 3 / 4 - 1e-4
    assert ratio.max() <= 4 / 3 + 1e-4
    from torchvision.transforms import v2

    reference = v2.RandomResizedCrop(200, scale=(0.5, 1.0))
    torch.manual_seed(0)
    drawn = [reference.make_params([torch.zeros(3, 200, 200)]) for _ in range(3000)]
    expected_sizes = np.array([[p["width"] / 200, p["height"] / 200] for p in drawn])
    assert abs(expected_sizes[:, 0].mean() - float(width.mean())) < 0.01
    assert abs(expected_sizes.prod(axis=1).mean() - float(area.mean())) < 0.01
    flipped = float((affine[:, 0, 0] < 0).float().mean())
    assert abs(flipped - 0.5) < 0.02


def test_changes_have_the_requested_probabilities() -> None:
    change = draw_plan(40000, AugmentSettings(style=0.3, corrupt=0.2), generator()).change
    styled = torch.isin(change, STYLES).float().mean()
    corrupted = torch.isin(change, CORRUPTIONS).float().mean()
    assert abs(styled - 0.3) < 0.01
    assert abs(corrupted - 0.2) < 0.01
    edges = (change == 0).float().mean()
    assert abs(edges - 0.3 * 2 / 5) < 0.01  # twice as often as each of the three others


def test_probabilities_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="style \\+ corrupt <= 1"):
        draw_plan(2, AugmentSettings(style=0.7, corrupt=0.5), generator())


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
@pytest.mark.parametrize("side", [32, 45])
def test_a_change_preserves_shape_and_range_and_depends_only_on_its_image(change, side) -> None:  # type: ignore[no-untyped-def]
    batch = torch.rand(4, 3, side, side, generator=generator())
    draws = torch.rand(4, PARAMETERS, generator=generator(1))
    others = batch.flip(0)
    changed = change.apply(batch, draws, others)
    assert changed.shape == batch.shape
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not torch.allclose(changed, batch, atol=1e-3)
    alone = change.apply(batch[2:3], draws[2:3], others[2:3])
    assert torch.allclose(changed[2:3], alone, atol=1e-5)


def test_images_without_a_change_are_not_affected_by_changes_of_others() -> None:
    plan = draw_plan(6, STILL, generator())
    change = torch.tensor([-1, 0, -1, 3, 5, 10])
    still = Plan(**{**vars(plan), "affine": torch.eye(2, 3).expand(6, 2, 3).contiguous()})
    varied = apply_plan(images(), Plan(**{**vars(still), "change": change}), 40)
    same = [torch.equal(a, b) for a, b in zip(varied, images(), strict=True)]
    assert same == [True, False, True, False, False, False]


def test_hue_is_that_of_pillow() -> None:
    import colorsys

    pixels = torch.rand(1, 3, 4, 4, generator=generator())
    turned = shift_hue(pixels, torch.full((1, 1, 1, 1), 0.2))
    for y in range(4):
        for x in range(4):
            h, s, v = colorsys.rgb_to_hsv(*pixels[0, :, y, x].tolist())
            wanted = colorsys.hsv_to_rgb((h + 0.2) % 1, s, v)
            assert turned[0, :, y, x].tolist() == pytest.approx(wanted, abs=1e-5)


def test_mixup_and_cutmix_mix_images_and_targets_in_the_same_proportion() -> None:
    black, white = torch.zeros(4, 3, 64, 64, dtype=torch.uint8), torch.full((4, 3, 64, 64), 255, dtype=torch.uint8)
    batch = torch.cat([black, white])
    for mixup, cutmix in ((0.4, 0.0), (0.0, 1.0), (0.4, 1.0)):
        plan = draw_mix(1, 8, mixup, cutmix, generator(2))
        mixed = apply_mix(batch, plan).float().mean((1, 2, 3)) / 255
        means = batch.float().mean((1, 2, 3)) / 255
        wanted = means * plan.share + means[plan.partner] * (1 - plan.share)
        assert torch.allclose(mixed, wanted, atol=0.03), (mixup, cutmix)
        assert (plan.share < 0.999).any()


def test_partners_stay_within_their_batch() -> None:
    plan = draw_mix(5, 6, 0.2, 0.0, generator())
    batch = torch.arange(30) // 6
    assert torch.equal(batch, plan.partner // 6)
    assert sorted(plan.partner.tolist()) == list(range(30))
