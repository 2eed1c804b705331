"""Splits and groups stated by the data: columns of a table, folders train, val and test. No group is divided."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import put

from vl2v.config import DataConfig
from vl2v.data.contents import Contents
from vl2v.data.folder import DomainFolder
from vl2v.data.images import ImageDataset
from vl2v.data.listing import FaultyDataError
from vl2v.data.pixels import Digests
from vl2v.data.splits import TEST, TRAIN, VALIDATION, grouped_holdout, part_of
from vl2v.data.table import TableListing
from vl2v.errors import ConfigError, DataError
from vl2v.planning.prepare import list_folder, open_folder
from vl2v.planning.split import Split, split_dataset
from vl2v.planning.split_duplicates import copies_of_training

Row = dict[str, str]
COLUMNS = {"split": "fold", "group": "clip"}


def table_of(root: Path, rows: list[Row]) -> Path:
    """Write a table, and an image for each of its rows."""
    for i, row in enumerate(rows):
        row.setdefault("path", f"{i}.png")
        if not (root / row["path"]).exists():
            put(root / row["path"], i)
    with (root / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "class", "site", "fold", "clip"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    return root / "t.csv"


def rows_of(*folds: str, sites: tuple[str, ...] = ("a", "b"), each: int = 4) -> list[Row]:
    """Return `each` images of cat and dog at every site and in every fold; every two are a group."""
    cells = [(fold, site, name, i) for fold in folds for site in sites for name in ("cat", "dog") for i in range(each)]
    return [{"class": c, "site": s, "fold": f, "clip": f"{f}{s}{c}{i // 2}"} for f, s, c, i in cells]


def scan(table: Path, **columns: str) -> ImageDataset:
    return TableListing(table, columns=columns).scan()


def splits(dataset: ImageDataset, **config: object) -> Split:
    return split_dataset(dataset, DataConfig.model_validate({"root": dataset.root} | config), 0)


def faults(listing: TableListing | DomainFolder) -> dict[str, str]:
    with pytest.raises(FaultyDataError) as caught:
        listing.scan()
    return {fault.where: fault.problem for fault in caught.value.faults}


def groups_of(dataset: ImageDataset, *parts: np.ndarray) -> list[set[int]]:
    assert dataset.groups is not None
    return [set(dataset.groups[part].tolist()) for part in parts]


@pytest.mark.parametrize(
    ("name", "part"),
    [("train", TRAIN), ("Training", TRAIN), (" VAL ", VALIDATION), ("valid", VALIDATION), ("Validation", VALIDATION),
     ("dev", VALIDATION), ("TEST", TEST), ("eval", TEST), ("holdout", TEST), ("trains", None), ("", None), ("1", None)],
)  # fmt: skip
def test_names_of_parts_are_recognised(name: str, part: int | None) -> None:
    assert part_of(name) == part


def test_the_split_of_a_table_is_used(tmp_path: Path) -> None:
    dataset = scan(table_of(tmp_path, rows_of("Train", "VALIDATION", "test")), split="fold")
    parts = splits(dataset)
    for domain in ("a", "b"):
        rows = dataset.rows_of(domain)
        for part, chosen in ((TRAIN, parts.training), (VALIDATION, parts.validation), (TEST, parts.own_test)):
            assert dataset.parts is not None
            assert chosen[domain].tolist() == rows[dataset.parts[rows] == part].tolist()
            assert len(chosen[domain]) == 8
    assert parts.test == {}
    lines = Contents.of(dataset).lines()
    assert "  split: 16 train, 16 validation, 16 test images" in lines
    assert "split: column fold" in lines[1]


def test_without_validation_rows_validation_is_drawn_from_training(tmp_path: Path) -> None:
    dataset = scan(table_of(tmp_path, rows_of("train", "test", each=10)), split="fold")
    parts = splits(dataset)
    assert dataset.parts is not None
    for domain in ("a", "b"):
        assert [len(part[domain]) for part in (parts.training, parts.validation, parts.own_test)] == [16, 4, 20]
        assert (dataset.parts[np.concatenate([parts.training[domain], parts.validation[domain]])] == TRAIN).all()


def test_all_images_of_a_held_out_domain_are_tested_on(tmp_path: Path) -> None:
    dataset = scan(table_of(tmp_path, rows_of("train", "val", "test")), split="fold")
    parts = splits(dataset, held_out=("b",))
    assert len(parts.test["b"]) == 24
    assert list(parts.own_test) == list(parts.training) == ["a"]


def test_a_domain_of_only_test_rows_has_to_be_held_out(tmp_path: Path) -> None:
    rows = rows_of("train", sites=("a",), each=10) + rows_of("test", sites=("b",))
    dataset = scan(table_of(tmp_path, rows), split="fold")
    with pytest.raises(DataError, match="b has no images to train on") as caught:
        splits(dataset)
    assert "--held-out b" in (caught.value.next_step or "")
    assert len(splits(dataset, held_out=("b",)).test["b"]) == 8


def test_faults_of_a_split_are_listed_with_their_rows(tmp_path: Path) -> None:
    rows = rows_of("train", "test")
    rows[2]["fold"], rows[3]["fold"], rows[5]["fold"] = "", "tset", "tset"
    rows.append(rows[0] | {"path": "0.png", "fold": "test"})
    listing = TableListing(table_of(tmp_path, rows), columns={"split": "fold"})
    assert faults(listing) == {
        "row 4": "no split in the column fold",
        "rows 5, 7": "a split that is not train, validation or test in the column fold",
        f"row {len(rows) + 1}": "a file that another row lists with different splits",
    }


def test_a_class_needs_images_in_train(tmp_path: Path) -> None:
    rows = rows_of("train", "test") + [{"class": "owl", "site": s, "fold": "test"} for s in ("a", "b")]
    table = table_of(tmp_path, rows)
    assert faults(TableListing(table, columns={"split": "fold"})) == {"owl": "a class without an image in train"}
    assert TableListing(table, columns={"split": "fold"}, allow_missing_classes=True).scan().folders[-1] == "owl"
    for row in rows:
        row["fold"] = "test"
    assert faults(TableListing(table_of(tmp_path, rows), columns={"split": "fold"})) == {
        "the split": "no image to train on"
    }


def test_a_group_is_on_one_side_of_a_drawn_split(tmp_path: Path) -> None:
    dataset = scan(table_of(tmp_path, rows_of("", each=20)), group="clip")
    parts = splits(dataset)
    train, out = groups_of(
        dataset, *(np.concatenate(list(part.values())) for part in (parts.training, parts.validation))
    )
    assert not train & out
    assert [len(part["a"]) for part in (parts.training, parts.validation)] == [32, 8]
    assert parts.training["a"].tolist() != splits(scan(tmp_path / "t.csv")).training["a"].tolist()
    assert "  40 groups that no split divides" in Contents.of(dataset).lines()


def test_a_group_in_two_domains_is_on_one_side(tmp_path: Path) -> None:
    rows = rows_of("", each=20)
    for row in rows:
        row["clip"] = row["clip"].replace("a", "s").replace("b", "s")  # site a and site b: the same clips
    dataset = scan(table_of(tmp_path, rows), group="clip")
    parts = splits(dataset)
    train, out = groups_of(
        dataset, *(np.concatenate(list(part.values())) for part in (parts.training, parts.validation))
    )
    assert not train & out
    assert all(len(part) == 8 for part in parts.validation.values())


def test_images_of_a_group_that_is_tested_on_are_not_trained_on(tmp_path: Path) -> None:
    rows = rows_of("", each=20)
    shared = next(row["clip"] for row in rows if row["site"] == "b")
    for row in rows[:3]:
        row["clip"] = shared
    dataset = scan(table_of(tmp_path, rows), group="clip")
    parts = splits(dataset, held_out=("b",))
    assert parts.left_out == 3
    train, out, test = groups_of(dataset, parts.training["a"], parts.validation["a"], parts.test["b"])
    assert not (train | out) & test
    assert len(parts.training["a"]) + len(parts.validation["a"]) == 37


def test_a_stated_split_that_divides_a_group_is_a_fault(tmp_path: Path) -> None:
    rows = rows_of("train", "test")
    rows[1]["fold"] = "test"
    listing = TableListing(table_of(tmp_path, rows), columns=COLUMNS)
    assert faults(listing) == {"row 3": "a row of a group that another row puts into another split"}


def test_a_domain_of_one_group_cannot_be_divided(tmp_path: Path) -> None:
    rows = [row | {"clip": "one"} for row in rows_of("")]
    with pytest.raises(DataError, match="without dividing a group") as caught:
        splits(scan(table_of(tmp_path, rows), group="clip"))
    assert "16 images in 1 group" not in str(caught.value), "it is about one domain"
    assert "8 images in 1 group" in str(caught.value)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 3)), min_size=1, max_size=80), st.integers(0, 5))
def test_held_out_groups_leave_every_class_and_are_not_divided(rows: list[tuple[int, int]], seed: int) -> None:
    groups, labels = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    assigned: dict[int, bool] = {}
    training, validation = grouped_holdout(groups, labels, assigned, seed, 0, 0.2)
    assert sorted([*training, *validation]) == list(range(len(rows)))
    assert not set(groups[training].tolist()) & set(groups[validation].tolist())
    assert set(labels[labels >= 0].tolist()) <= set(labels[training].tolist())
    assert {group for group, on in assigned.items() if on} == set(groups[validation].tolist())
    again = grouped_holdout(groups, labels, assigned, seed + 1, 1, 0.2)
    assert (again[0] == training).all(), "the side of a group is the same in every domain"


def test_the_digest_depends_on_splits_and_groups(tmp_path: Path) -> None:
    rows = rows_of("train", "test")
    table = table_of(tmp_path, rows)
    plain, split, both = scan(table), scan(table, split="fold"), scan(table, **COLUMNS)
    assert len({plain.digest(), split.digest(), both.digest()}) == 3
    rows[0]["fold"] = rows[1]["fold"] = "test"
    assert scan(table_of(tmp_path, rows), split="fold").digest() != split.digest()


@pytest.mark.parametrize(
    ("copied", "to", "counted"),
    [
        ("train", "test", "1 test image is"),
        ("train", "val", "1 validation image is"),
        ("heap", "test", "1 test image is"),
        ("heap", "val", "1 validation image is"),
        ("heap", "unseen", "1 test image is"),
        ("train", "train", ""),
        ("val", "test", ""),
    ],
)
def test_copies_of_training_images_are_reported(tmp_path: Path, copied: str, to: str, counted: str) -> None:
    rows = rows_of("train", "val", "test")
    dataset = scan(table_of(tmp_path, rows), split="fold")
    split = splits(dataset)
    parts = {"train": split.training["a"], "val": split.validation["a"], "test": split.own_test["b"]}
    unseen = replace(dataset, digests=dataset.digests ^ np.uint8(1))
    heap = dataset.digests ^ np.uint8(2)
    source = (heap[0] if copied == "heap" else dataset.digests[parts[copied][0]]).copy()
    assert not copies_of_training(dataset, split, unseen, training_digests(dataset, split, heap))
    if to == "unseen":
        unseen.digests[0] = source
    else:
        dataset.digests[parts[to][-1]] = source
    text = copies_of_training(dataset, split, unseen, training_digests(dataset, split, heap))
    assert text.startswith(counted) if counted else text == ""


def training_digests(dataset: ImageDataset, split: Split, heap: Digests) -> Digests:
    return np.concatenate([*(dataset.digests[rows] for rows in split.training.values()), heap])


@pytest.mark.parametrize("deep", [False, True])
def test_folders_train_val_and_test_are_used_as_the_split(tmp_path: Path, deep: bool) -> None:
    root, seed = tmp_path / "photos", 0
    for part in ("Train", "valid_1", "test"):
        for cell in ("a/cat", "a/dog", "b/cat", "b/dog") if deep else ("cat", "dog"):
            for i in range(2):
                put(root / part / cell / f"{i}.png", seed := seed + 1)
    dataset = DomainFolder(root).scan()
    assert dataset.domains == (("a", "b") if deep else ("photos",))
    assert dataset.folders == ("cat", "dog")
    parts = splits(dataset)
    for domain in dataset.domains:
        for rows, name in (
            (parts.training[domain], "Train"),
            (parts.validation[domain], "valid_1"),
            (parts.own_test[domain], "test"),
        ):
            assert {dataset.paths[row].split("/")[0] for row in rows} == {name}
            assert len(rows) == 4
    again = open_folder(DataConfig(root=root), layout_known=True).scan()
    assert again.digest() == dataset.digest(), "a resumed run reads the same"
    as_found = list_folder(DataConfig(root=root, layout_as_found=True))
    assert as_found.domains == ("Train", "test", "valid_1")


def test_folders_of_splits_that_differ_or_have_no_train_are_faults(tmp_path: Path) -> None:
    for i, path in enumerate(("train/cat", "train/dog", "test/a/cat", "test/a/dog")):
        put(tmp_path / "mixed" / path / "1.png", 2 * i)
        put(tmp_path / "mixed" / path / "2.png", 2 * i + 1)
        put(tmp_path / "none" / path.replace("train", "val").replace("/a/", "/") / f"{i}.png", i)
    messages = faults(DomainFolder(tmp_path / "mixed"))
    assert messages["test, train"] == "class folders in some, domain folders in others"
    assert faults(DomainFolder(tmp_path / "none"))["test, val"] == "splits of one dataset, read as domains"


def test_columns_of_splits_are_for_tables(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "1.png", 1)
    with pytest.raises(ConfigError, match=r"data\.split, data\.group: only a table has columns"):
        open_folder(DataConfig(root=tmp_path, split="fold", group="clip"))
    table = table_of(tmp_path, rows_of("train"))
    with pytest.raises(ConfigError, match="--split part: no such column"):
        TableListing(table, columns={"split": "part"})
