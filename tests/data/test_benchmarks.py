from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_files import files_of, home, small  # noqa: F401 - a fixture

from vl2v.datasets import registry as benchmarks
from vl2v.datasets.facts import BENCHMARKS, DOMAIN_NET, OFFICE_HOME, PACS, TERRA_INCOGNITA, VLCS, Benchmark, Release
from vl2v.datasets.get import check
from vl2v.datasets.registry import BenchmarkWarning, Names, compare, find, is_plain, note_place, resolve, tally
from vl2v.errors import ConfigError, DataError

PUBLISHED = {  # the table of DomainBed: domains, classes, images
    "PACS": (4, 7, 9_991),
    "VLCS": (4, 5, 10_729),
    "OfficeHome": (4, 65, 15_588),
    "TerraIncognita": (4, 10, 24_788),
    "DomainNet": (6, 345, 586_575),
}


def laid_out(root: Path, benchmark: Benchmark, each: int = 2) -> Path:
    for path, data in files_of(benchmark, each=each).items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return root


def counts_of(benchmark: Benchmark) -> dict[str, dict[str, int]]:
    """Return counts with correct domains; all images are in the first class except one of each other class."""
    first, *others = benchmark.classes
    return {
        domain: {first: count - len(others), **dict.fromkeys(others, 1)} for domain, count in benchmark.images.items()
    }


def test_the_counts_are_those_of_domainbed() -> None:
    assert {b.name: (len(b.images), b.class_count, b.total) for b in BENCHMARKS} == PUBLISHED


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: b.name)
def test_an_entry_is_consistent(benchmark: Benchmark) -> None:
    assert len(set(benchmark.classes)) in (0, benchmark.class_count)
    assert set(benchmark.aliases.values()) <= set(benchmark.images)
    for domain, classes in benchmark.images_per_class.items():
        assert sum(classes.values()) == benchmark.images[domain]
        assert set(classes) == set(benchmark.classes)
    for release in benchmark.releases:
        assert set(release.images) == set(benchmark.images)
    assert bool(benchmark.hub) == bool(benchmark.revision)
    assert all(len(archive.md5) in (0, 32) for archive in benchmark.archives)
    assert len({archive.name for archive in benchmark.archives}) == len(benchmark.archives) > 0
    assert benchmark.licence
    assert benchmark.download_bytes


@pytest.mark.parametrize(
    ("name", "expected"), [("PACS", PACS), ("office_home", OFFICE_HOME), ("domain-net", DOMAIN_NET), ("vlcs", VLCS)]
)
def test_a_name_is_found_in_any_spelling(name: str, expected: Benchmark) -> None:
    assert find(name) is expected


def test_a_wrong_name_is_refused_with_the_right_ones() -> None:
    with pytest.raises(ConfigError, match="PACS, VLCS, OfficeHome, TerraIncognita, DomainNet"):
        find("ImageNet")


def test_every_common_spelling_of_a_name_is_recognised() -> None:
    assert Names(OFFICE_HOME).domain("RealWorld") == Names(OFFICE_HOME).domain("real_world") == "Real World"
    assert Names(VLCS).domain("CALTECH") == "Caltech101"
    assert Names(TERRA_INCOGNITA).domain("L100") == "location_100"
    assert Names(PACS).domain("quickdraw") is None
    assert Names(PACS).class_of("zebra") is None
    assert Names(DOMAIN_NET).class_of("aircraft_carrier") == "aircraft_carrier"
    assert Names(DOMAIN_NET).class_of("../up") is None


@pytest.mark.parametrize("name", ["", ".", "..", ".git", "a/b", "a\\b", "C:x", "a\0", "a\n", "a.", "a ", "x" * 201])
def test_only_plain_names_become_file_names(name: str) -> None:
    assert not is_plain(name)
    assert is_plain("aircraft carrier_1.jpg")


def test_correct_counts_have_no_difference() -> None:
    assert compare(PACS, PACS.images_per_class).differences == ()
    assert compare(OFFICE_HOME, counts_of(OFFICE_HOME)).differences == ()


def test_missing_images_moved_images_and_unknown_classes_are_reported() -> None:
    counts = {domain: dict(classes) for domain, classes in PACS.images_per_class.items()}
    counts["photo"]["dog"] -= 1
    counts["sketch"]["dog"] -= 1
    counts["sketch"]["house"] += 1
    counts["cartoon"]["zebra"] = counts["cartoon"].pop("horse")
    assert set(compare(PACS, counts).differences) == {
        "photo: expected 1,670 images, found 1,669 images",
        "photo/dog: expected 189 images, found 188 images",
        "sketch/dog: expected 772 images, found 771 images",
        "sketch/house: expected 80 images, found 81 images",
        "cartoon/horse: expected 324 images, found 0 images",
        "'zebra' is not one of its classes",
    }


def test_unknown_domains_and_a_wrong_number_of_classes_are_reported() -> None:
    counts = {domain: {"a": count} for domain, count in DOMAIN_NET.images.items()} | {"extra": {"a": 1}}
    assert compare(DOMAIN_NET, counts).differences == (
        "extra: expected 0 images, found 1 image",
        "expected 345 classes, found 1",
    )


def test_the_release_of_the_current_annotations_is_recognised() -> None:
    release = TERRA_INCOGNITA.releases[0]
    assert sum(release.images.values()) == 24_330
    verdict = compare(TERRA_INCOGNITA, counts_of(replace(TERRA_INCOGNITA, images=release.images)))
    assert verdict.differences == ()
    assert verdict.release == release.about
    assert compare(TERRA_INCOGNITA, counts_of(TERRA_INCOGNITA)).release == ""


def test_only_images_are_counted(tmp_path: Path) -> None:
    laid_out(tmp_path, small(PACS), each=1)
    (tmp_path / "benchmark.json").write_text("{}")
    (tmp_path / ".hidden" / "a").mkdir(parents=True)
    (tmp_path / ".hidden" / "a" / "1.png").touch()
    (tmp_path / "photo" / "dog" / "notes.txt").touch()
    (tmp_path / "photo" / "dog" / ".1.png").touch()
    (tmp_path / "photo" / "empty").mkdir()
    assert tally(tmp_path) == {domain: dict.fromkeys(PACS.classes, 1) for domain in PACS.images}


def test_a_check_finds_missing_and_unreadable_images(tmp_path: Path) -> None:
    benchmark = small(PACS)
    root = laid_out(tmp_path / "PACS", benchmark)
    right = check(benchmark, root)
    assert right.right
    assert len(right.digest) == 64
    (root / "photo" / "dog" / "0.png").write_bytes(b"no image")
    (root / "sketch" / "house" / "1.png").unlink()
    report = check(benchmark, root)
    assert not report.right
    assert report.differences == ("sketch: expected 14 images, found 13 images",)
    assert [fault.where for fault in report.unreadable] == ["photo/dog/0.png"]
    assert report.digest == ""


def test_a_check_of_an_empty_folder_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="contains no benchmark"):
            check(PACS, folder)


def test_a_folder_of_the_user_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path
    (tmp_path / "PACS").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("./PACS") == resolve(Path("PACS")) == Path("PACS")
    with pytest.raises(ConfigError, match="is not a folder"):
        resolve(tmp_path / "none")
    with pytest.raises(ConfigError, match="or one of PACS"):
        resolve("PAKS")


@pytest.fixture
def tiny_pacs(monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """Replace PACS with two images per class."""
    benchmark = small(PACS)
    monkeypatch.setattr(benchmarks, "BENCHMARKS", (benchmark,))
    benchmarks._checked.cache_clear()
    return benchmark


def test_a_benchmark_is_found_under_a_root_or_as_the_root(tmp_path: Path, tiny_pacs: Benchmark) -> None:
    folder = laid_out(tmp_path / "pacs", tiny_pacs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve("PACS", tmp_path) == folder
        assert resolve("PACS", folder) == folder
    with pytest.raises(DataError, match="vl2v data get PACS"):
        resolve("PACS", tmp_path / "elsewhere")


def test_a_benchmark_is_found_where_it_was_installed(tmp_path: Path, tiny_pacs: Benchmark) -> None:
    with pytest.raises(DataError, match="PACS is missing"):
        resolve("PACS")
    folder = laid_out(tmp_path / "mine", tiny_pacs)
    note_place(tiny_pacs, folder)
    assert resolve("PACS") == folder


def test_a_difference_is_a_warning_and_not_an_error(tmp_path: Path, tiny_pacs: Benchmark) -> None:
    folder = laid_out(tmp_path / "PACS", tiny_pacs)
    (folder / "photo" / "dog" / "0.png").unlink()
    with pytest.warns(BenchmarkWarning, match="photo: expected 14 images, found 13 images"):
        assert resolve("PACS", tmp_path) == folder


def test_a_release_with_other_counts_is_a_warning_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice, once = small(TERRA_INCOGNITA), small(TERRA_INCOGNITA, each=1)
    monkeypatch.setattr(benchmarks, "BENCHMARKS", (replace(twice, releases=(Release("half of it", once.images),)),))
    benchmarks._checked.cache_clear()
    laid_out(tmp_path / "terra_incognita", once, each=1)
    with pytest.warns(BenchmarkWarning, match="half of it"):
        resolve("TerraIncognita", tmp_path)


def test_the_real_pacs_passes_the_check(shared: Path) -> None:
    folder = shared / "data" / "PACS"
    if not folder.is_dir():
        pytest.skip("PACS is not in the maintainers' folder")
    assert tally(folder) == PACS.images_per_class
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve("PACS", folder.parent) == folder
