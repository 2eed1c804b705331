from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, folder_of, noise

from vl2v.data.augment import Augmentation, AugmentSettings
from vl2v.data.batches import AugmentedPixels, Draw, Streams, augmented_batches
from vl2v.data.folder import DomainFolder
from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex
from vl2v.data.splits import domainbed_holdout, labels_per_class, seed_hash
from vl2v.data.views import make_views, view_bytes
from vl2v.errors import ConfigError
from vl2v.progress import Silent
from vl2v_runtime.imaging import decode, square


@given(st.integers(0, 300), st.integers(0, 10), st.integers(0, 6), st.floats(0, 0.999))
def test_the_holdout_is_a_permutation_of_the_stated_size(length: int, seed: int, domain: int, fraction: float) -> None:
    training, validation = domainbed_holdout(length, seed, domain, fraction)
    assert len(validation) == int(length * fraction)
    assert sorted([*training.tolist(), *validation.tolist()]) == list(range(length))
    again = domainbed_holdout(length, seed, domain, fraction)
    assert np.array_equal(training, again[0])
    assert np.array_equal(validation, again[1])


def test_the_holdout_depends_on_seed_and_domain_and_refuses_wrong_fractions() -> None:
    orders = {tuple(domainbed_holdout(50, s, d)[0].tolist()) for s in range(3) for d in range(3)}
    assert len(orders) == 9
    assert seed_hash(0, 1) != seed_hash(1, 0)
    for length, fraction in ((-1, 0.2), (5, 1.0), (5, -0.1)):
        with pytest.raises(ValueError, match="expected"):
            domainbed_holdout(length, 0, 0, fraction)


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(1, 5), st.integers(0, 3))
def test_labels_per_class_selects_that_many_of_each_class(labels: list[int], count: int, seed: int) -> None:
    all_labels = np.array(labels, np.int64)
    indices = np.flatnonzero(np.arange(len(labels)) % 3 != 0)
    selected = labels_per_class(indices, all_labels, count, seed, 0)
    assert set(selected.tolist()) <= set(indices.tolist())
    assert selected.tolist() == sorted(set(selected.tolist()))
    for k in range(5):
        assert (all_labels[selected] == k).sum() == min(count, (all_labels[indices] == k).sum())
    assert np.array_equal(selected, labels_per_class(indices, all_labels, count, seed, 0))


def test_labels_per_class_draws_with_the_seed() -> None:
    draws = {tuple(labels_per_class(np.arange(100), np.arange(100) % 2, 5, s, 0).tolist()) for s in range(5)}
    assert len(draws) == 5


groups_and_shares = st.lists(st.tuples(st.integers(1, 25), st.integers(1, 8)), min_size=1, max_size=4)


def streams_of(shape: list[tuple[int, int]], seed: int) -> Streams:
    starts = np.cumsum([0, *(size for size, _ in shape)])
    groups = tuple(np.arange(first, first + size) for first, (size, _) in zip(starts, shape, strict=False))
    return Streams(groups, tuple(share for _, share in shape), seed)


@settings(max_examples=50, deadline=None)
@given(groups_and_shares, st.integers(0, 100))
def test_every_epoch_has_each_image_of_a_group_once(shape: list[tuple[int, int]], seed: int) -> None:
    streams = streams_of(shape, seed)
    drawn: list[list[int]] = [[] for _ in shape]
    for step in range(30):
        draw, start = streams.draw(step), 0
        for g, (_, share) in enumerate(shape):
            drawn[g] += draw.rows[start : start + share].tolist()
            start += share
        assert len(draw.rows) == len(draw.seeds) == start
        assert (draw.seeds >= 0).all()
    for group, rows in zip(streams.groups, drawn, strict=True):
        for epoch in range(len(rows) // len(group)):
            assert sorted(rows[epoch * len(group) : (epoch + 1) * len(group)]) == group.tolist()
        assert set(rows) <= set(group.tolist())


def test_a_group_smaller_than_its_share_repeats_within_a_batch() -> None:
    rows = Streams((np.array([7, 9]),), (6,), 0).draw(0).rows
    assert sorted(rows.tolist()) == [7, 7, 7, 9, 9, 9]


@settings(max_examples=40, deadline=None)
@given(groups_and_shares, st.integers(0, 100), st.lists(st.integers(0, 50), min_size=1, max_size=6))
def test_a_draw_depends_on_seed_and_step_alone(shape: list[tuple[int, int]], seed: int, steps: list[int]) -> None:
    walked, fresh = streams_of(shape, seed), {}
    for step in steps:  # in any order, on an object that was used before
        fresh[step] = streams_of(shape, seed).draw(step)
        draw = walked.draw(step)
        assert np.array_equal(draw.rows, fresh[step].rows)
        assert np.array_equal(draw.seeds, fresh[step].seeds)
    seeds = np.concatenate([draw.seeds for draw in fresh.values()])
    assert len(np.unique(seeds)) == len(seeds)


def test_another_seed_gives_another_order() -> None:
    first, other = (streams_of([(40, 8)], seed).draw(0) for seed in (0, 1))
    assert first.rows.tolist() != other.rows.tolist()
    assert first.seeds.tolist() != other.seeds.tolist()


@given(groups_and_shares, st.integers(1, 4), st.integers(0, 20))
def test_ranks_partition_the_batch(shape: list[tuple[int, int]], world_size: int, step: int) -> None:
    streams = streams_of([(size, share * world_size) for size, share in shape], 3)
    full_batch = streams.draw(step)
    parts = [streams.draw(step, rank, world_size) for rank in range(world_size)]
    together = sorted((int(r), int(s)) for part in parts for r, s in zip(part.rows, part.seeds, strict=True))
    assert together == sorted((int(r), int(s)) for r, s in zip(full_batch.rows, full_batch.seeds, strict=True))
    assert {len(part.rows) for part in parts} == {sum(share for _, share in shape)}


def test_an_uneven_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 processes"):
        streams_of([(10, 6), (10, 4)], 0).draw(0, 0, 3)


def test_augmentation_is_a_function_of_the_seed() -> None:
    augmentation, image = Augmentation(16), square(noise(0), 16)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = augmentation(image, 123456789012345678)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(first, augmentation(image, 123456789012345678))
    assert not torch.equal(first, augmentation(image, 1))
    assert first.shape == (3, 16, 16)
    assert first.dtype == torch.uint8
    assert np.array_equal(image, square(noise(0), 16))


def test_augmentation_of_strength_zero_changes_nothing() -> None:
    plain = Augmentation(16, AugmentSettings(scale=1.0, flip=0.0, jitter=0.0, grayscale=0.0))
    flat = np.full((16, 16, 3), 77, np.uint8)
    assert (plain(flat, 3) == 77).all()
    grey = Augmentation(16, AugmentSettings(scale=1.0, flip=0.0, jitter=0.0, grayscale=1.0))(square(noise(1), 16), 3)
    assert torch.equal(grey[0], grey[1])


def test_workers_do_not_change_a_batch() -> None:
    pixels = np.stack([square(noise(i), 16) for i in range(12)])
    slots = np.arange(12)[::-1].copy()
    streams = Streams((np.arange(7), np.arange(7, 12)), (3, 2), 4)
    draws = [streams.draw(step) for step in range(4)]
    dataset = AugmentedPixels(pixels, slots, Augmentation(16))
    in_process, in_workers = (list(augmented_batches(dataset, iter(draws), workers)) for workers in (0, 1))
    assert len(in_process) == len(in_workers) == 4
    for (images, rows), (other_images, other_rows), draw in zip(in_process, in_workers, draws, strict=True):
        assert torch.equal(images, other_images)
        assert np.array_equal(rows, draw.rows)
        assert np.array_equal(rows, other_rows)
        assert images.shape == (5, 3, 16, 16)
        wanted = pixels[slots[draw.rows[0]]]
        assert torch.equal(images[0], Augmentation(16)(wanted, int(draw.seeds[0])))


def test_a_draw_reads_the_slots_of_its_rows() -> None:
    pixels = np.stack([np.full((8, 8, 3), i, np.uint8) for i in range(3)])
    plain = Augmentation(8, AugmentSettings(scale=1, flip=0, jitter=0, grayscale=0))
    dataset = AugmentedPixels(pixels, np.array([2, 0]), plain)
    images, _ = next(augmented_batches(dataset, [Draw(np.array([0, 1]), np.array([1, 2]))]))
    assert images[:, 0, 0, 0].tolist() == [2, 0]


def test_view_zero_is_the_file_and_the_others_are_fixed_png() -> None:
    data = encoded(noise(5, (40, 30)), "BMP")
    digest = hashlib.sha256(data).digest()
    assert view_bytes(data, digest, 0, 7) is data
    views = [view_bytes(data, digest, view, 7) for view in (1, 2, 3)]
    assert views == [view_bytes(data, digest, view, 7) for view in (1, 2, 3)]
    assert len({*views, *(view_bytes(data, digest, view, 8) for view in (1, 2, 3))}) == 6
    for view in views:
        assert view.startswith(b"\x89PNG")
        width, height = decode(view).size
        assert 0.6 * 1200 < width * height <= 1200
        assert width <= 40
        assert height <= 30
    assert decode(view_bytes(encoded(noise(1, (1, 1))), digest, 1, 0)).size == (1, 1)


def test_views_are_created_once_and_their_pixels_cached(tmp_path: Path) -> None:
    index, cache = FileIndex(tmp_path / "c" / "files.sqlite"), PixelCache(tmp_path / "c", 8)
    dataset = DomainFolder(folder_of(tmp_path / "data")).scan(index=index, cache=cache)
    rows = np.array([5, 0, 2])
    digests = make_views(dataset, rows, 3, 9, index, cache, Silent())
    assert np.array_equal(digests[:, 0], dataset.digests[rows])
    for i, row in enumerate(rows):
        data = dataset.read(int(row))
        for view in range(3):
            wanted = view_bytes(data, dataset.digests[row].tobytes(), view, 9)
            assert digests[i, view].tobytes() == hashlib.sha256(wanted).digest()
            slot = cache.slots(digests[i, view][None])[0]
            assert np.array_equal(cache.map()[slot], square(decode(wanted), 8))
    for row in rows:
        (dataset.root / dataset.paths[row]).unlink()  # a second call reads no file
    assert np.array_equal(make_views(dataset, rows, 3, 9, index, cache, Silent()), digests)
    index.close()
    cache.close()
