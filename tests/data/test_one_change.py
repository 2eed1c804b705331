from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from vl2v.data.augment import Augmentation, AugmentSettings, OneChange
from vl2v.data.batches import AugmentedPixels, Streams, augmented_batches
from vl2v.data.image_changes import CHANGES

SIDE = 24
SEEDS = range(7, 10**12, 10**12 // 100)


def pictures(count: int = 10, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def paper(pixels: NDArray[np.uint8], seed: int) -> Tensor:
    """The augmentation of the paper."""
    steps = [v2.RandomResizedCrop(SIDE, scale=(0.7, 1.0), antialias=True), v2.RandomHorizontalFlip(0.5)]
    steps += [v2.ColorJitter(0.3, 0.3, 0.3, 0.3), v2.RandomGrayscale(0.1), v2.PILToTensor()]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        varied: Tensor = v2.Compose(steps)(Image.fromarray(pixels))
    return varied


def test_images_without_a_change_are_augmented_as_in_the_paper_bit_for_bit() -> None:
    image, plain, half = pictures()[0], Augmentation(SIDE), Augmentation(SIDE, AugmentSettings(style=0.3, corrupt=0.2))
    wanted = [paper(image, seed) for seed in SEEDS]
    assert all(torch.equal(plain(image, seed), one) for seed, one in zip(SEEDS, wanted, strict=True))
    partner = pictures()[1]
    same = [torch.equal(half(image, seed, lambda _: partner), one) for seed, one in zip(SEEDS, wanted, strict=True)]
    assert 0.35 < np.mean(same) < 0.65


def test_a_change_and_its_partner_follow_from_the_seed() -> None:
    image = torch.from_numpy(pictures()[0]).permute(2, 0, 1)
    seen: list[float] = []
    mixed, second = set(), np.ascontiguousarray(pictures()[1])

    def other(where: float) -> NDArray[np.uint8]:
        seen.append(where)
        return second

    for seed in range(60):
        seen.clear()
        drawn = torch.from_numpy(np.random.Generator(np.random.Philox(key=2**64 + seed)).random(8, dtype=np.float32))
        changed, matches = OneChange(1.0, 0.0)(image, seed, other), []
        for change in CHANGES:
            partner = torch.from_numpy(pictures()[1]).permute(2, 0, 1)[None] / 255
            by_hand = change.apply(image[None] / 255, drawn[None, 4:], partner)
            if torch.equal((by_hand[0] * 255).round().to(torch.uint8), changed):
                matches.append(change)
        assert [change.style for change in matches] == [True]
        assert bool(seen) == matches[0].partner
        mixed.add(matches[0].name)
    assert mixed == {"edges", "poster", "recoloured", "amplitude"}


def test_style_and_corruption_are_different_kinds() -> None:
    image = torch.from_numpy(pictures()[0]).permute(2, 0, 1)
    counts = [sum(OneChange(*shares)(image, s) is not image for s in range(400)) for shares in ((0.25, 0), (0, 0.25))]
    assert all(70 < count < 130 for count in counts)
    both = [OneChange(0.25, 0.25)(image, s) for s in range(400)]
    alone = [[OneChange(*shares)(image, s) for s in range(400)] for shares in ((0.25, 0), (0, 0.25))]
    for one, style, corruption in zip(both, *alone, strict=True):
        assert style is image or corruption is image, "never both"
        assert torch.equal(one, corruption if style is image else style)
    with pytest.raises(ValueError, match=r"style \+ corrupt <= 1"):
        OneChange(0.6, 0.5)


def batches(
    pixels: NDArray[np.uint8], workers: int = 0, rank: int = 0, world_size: int = 1, start: int = 0
) -> list[Tensor]:
    slots = np.array([8, 2, 4, 6, 1, 0, 3])
    data = AugmentedPixels(pixels, slots, Augmentation(SIDE, AugmentSettings(style=0.6, corrupt=0.4)))
    streams = Streams((np.arange(4), np.arange(4, 7)), (4, 2), 11)
    draws = [streams.draw(step, rank, world_size) for step in range(start, 4)]
    return [images for images, _ in augmented_batches(data, draws, workers)]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    all_batches, before = batches(pictures()), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert all(torch.equal(a, b) for a, b in zip(all_batches, batches(pictures()), strict=True))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(all_batches, batches(pictures(), workers=1), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(all_batches[2:], batches(pictures(), start=2), strict=True))
    parts = zip(*(batches(pictures(), rank=rank, world_size=2) for rank in (0, 1)), strict=True)
    for images, (one, two) in zip(all_batches, parts, strict=True):
        assert torch.equal(images[[0, 2, 4]], one)
        assert torch.equal(images[[1, 3, 5]], two)


def test_partners_are_training_rows() -> None:
    other = pictures()
    other[[5, 7, 9]] = 0  # slots of no training row
    assert all(torch.equal(a, b) for a, b in zip(batches(pictures()), batches(other), strict=True))
    data = AugmentedPixels(pictures(), np.array([3, 9]), Augmentation(SIDE))
    assert np.array_equal(data._other(0.0), pictures()[3])
    assert np.array_equal(data._other(0.4999), pictures()[3])
    assert np.array_equal(data._other(0.99999997), pictures()[9])
    assert np.array_equal(data._other(1.0), pictures()[9])


def test_a_partner_of_another_size_is_resized() -> None:
    image, large = torch.from_numpy(pictures()[0]).permute(2, 0, 1), np.full((50, 30, 3), 200, np.uint8)
    changed = [OneChange(1.0, 0.0)(image, seed, lambda _: large) for seed in range(40)]
    assert all(one.shape == (3, SIDE, SIDE) and one.dtype == torch.uint8 for one in changed)
