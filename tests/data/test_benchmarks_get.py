from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import files_of, home, image, small, table, tarred, zipped  # noqa: F401 - a fixture

from recorders import MessageRecorder
from vl2v.data.folder import DomainFolder
from vl2v.datasets import registry as benchmarks
from vl2v.datasets.facts import DOMAIN_NET, OFFICE_HOME, PACS, TERRA_INCOGNITA, VLCS, Benchmark
from vl2v.datasets.get import check, get, tree_digest
from vl2v.datasets.registry import resolve
from vl2v.datasets.sources import choose
from vl2v.errors import ConfigError, DataError, DiskFullError, MissingExtraError


def installed(benchmark: Benchmark, out: Path, source: Path | str) -> dict[str, bytes]:
    """Install a benchmark, check the folder against its manifest, and return the images by path."""
    manifest = get(benchmark, out, choose(benchmark, str(source)))
    report = check(benchmark, out)
    assert report.right
    assert report.digest == report.manifest_digest == manifest["digest"]
    assert json.loads((out / "benchmark.json").read_text()) == manifest
    assert [path.name for path in out.parent.iterdir() if "partial" in path.name] == []
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "benchmark.json"
    }


def refused(benchmark: Benchmark, out: Path, source: Path | str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        get(benchmark, out, choose(benchmark, str(source)))
    assert not out.exists()


@pytest.mark.slow
def test_pacs_is_read_from_an_archive_in_the_official_layout(tmp_path: Path) -> None:
    files = {
        f"kfold/{domain}/{label}/pic_{n:03d}.jpg": b"\xff\xd8\xff" + f"{domain}{label}{n}".encode()
        for domain, classes in PACS.images_per_class.items()
        for label, count in classes.items()
        for n in range(count)
    }
    assert len(files) == 9_991
    clutter = {"kfold/readme.txt": b"hello", "__MACOSX/kfold/photo/dog/._pic_001.jpg": b"x", "kfold/.DS_Store": b"x"}
    archive = zipped(tmp_path / "PACS.zip", files | clutter)
    manifest = get(PACS, tmp_path / "out" / "PACS", choose(PACS, str(archive)))
    assert manifest["images"] == 9_991
    assert manifest["classes"] == PACS.images_per_class
    assert manifest["domains"] == PACS.images
    assert benchmarks.tally(tmp_path / "out" / "PACS") == PACS.images_per_class
    assert resolve("PACS") == (tmp_path / "out" / "PACS").resolve()


def test_a_missing_image_is_refused_and_nothing_is_installed(tmp_path: Path) -> None:
    files = files_of(PACS, "kfold/")
    refused(PACS, tmp_path / "PACS", zipped(tmp_path / "PACS.zip", files), "photo: expected 1,670 images, found 14")
    assert not (tmp_path / ".PACS.partial").exists()


def test_a_tar_a_folder_and_a_zip_give_the_same_images(tmp_path: Path) -> None:
    benchmark = small(VLCS)
    files = files_of(benchmark)
    expected = installed(benchmark, tmp_path / "a", zipped(tmp_path / "v.zip", files_of(benchmark, "VLCS/")))
    assert expected == files
    assert installed(benchmark, tmp_path / "b", tarred(tmp_path / "v.tar.gz", files_of(benchmark, "VLCS/"))) == files
    folder = tmp_path / "mine"
    with zipfile.ZipFile(tmp_path / "v.zip") as archive:
        archive.extractall(folder)
    assert installed(benchmark, tmp_path / "c", folder) == files
    assert len(DomainFolder(tmp_path / "a").scan()) == len(files)


def test_spellings_of_domains_become_those_of_the_benchmark(tmp_path: Path) -> None:
    benchmark = small(OFFICE_HOME, each=1)
    files = {
        path.replace("Real World", "RealWorld").replace("Alarm_Clock", "alarm clock"): data
        for path, data in files_of(benchmark, "OfficeHomeDataset_10072016/", each=1).items()
    }
    got = installed(benchmark, tmp_path / "out", zipped(tmp_path / "o.zip", files))
    assert got == files_of(benchmark, each=1)


def rows_of(benchmark: Benchmark) -> list[tuple[bytes, str | None, int | str, int | str | None]]:
    return [
        (image(1000 * d + 10 * c + n), f"pic_{n}.png", c, domain)
        for d, domain in enumerate(benchmark.images)
        for c in range(len(benchmark.classes))
        for n in range(2)
    ]


def test_parquet_in_the_layout_of_the_hub_is_read(tmp_path: Path) -> None:
    benchmark = small(PACS)
    rows = rows_of(benchmark)
    half = len(rows) // 2 + 1
    source = tmp_path / "hub" / "data"
    table(source / "train-00000-of-00002.parquet", rows[:half], {"label": PACS.classes}, group=5)
    table(source / "train-00001-of-00002.parquet", rows[half:], {"label": PACS.classes}, group=5)
    got = installed(benchmark, tmp_path / "out", tmp_path / "hub")
    assert got == {f"{row[3]}/{PACS.classes[int(row[2])]}/{row[1]}": row[0] for row in rows}


def test_parquet_with_domains_as_class_labels_and_rows_without_names_is_read(tmp_path: Path) -> None:
    benchmark = small(PACS)
    domains = tuple(benchmark.images)
    rows = [(data, None, label, domains.index(str(domain))) for data, _, label, domain in rows_of(benchmark)]
    source = table(tmp_path / "t.parquet", rows, {"label": PACS.classes, "domain": domains})
    got = installed(benchmark, tmp_path / "out", source)
    assert sorted(got.values()) == sorted(row[0] for row in rows)
    assert next(iter(got)) == "art_painting/dog/0000000.png"


def test_parquet_with_a_column_of_paths_is_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    benchmark = replace(small(PACS, each=1), classes=(), class_count=7)
    rows = [(image(i), domain, label) for i, (domain, label) in enumerate(product(benchmark.images, PACS.classes))]
    columns = {
        "image": [{"bytes": data, "path": "same.jpg"} for data, _, _ in rows],
        "label": [label for _, _, label in rows],
        "domain": [domain for _, domain, _ in rows],
        "image_path": [f"{domain}/{label}/{domain}_1.png" for _, domain, label in rows],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    got = installed(benchmark, tmp_path / "out", tmp_path / "t.parquet")
    assert got == {f"{domain}/{label}/{domain}_1.png": data for data, domain, label in rows}


def test_rows_with_equal_names_get_reproducible_distinct_names(tmp_path: Path) -> None:
    benchmark = small(PACS)
    rows = [(data, "same.jpg", label, domain) for data, _, label, domain in rows_of(benchmark)]
    source = table(tmp_path / "t.parquet", rows, {"label": PACS.classes})
    got = installed(benchmark, tmp_path / "a", source)
    assert got["art_painting/dog/same.jpg"] == rows[0][0]
    assert got["art_painting/dog/same-0000001.jpg"] == rows[1][0]
    assert installed(benchmark, tmp_path / "b", source) == got


def test_parquet_without_a_domain_column_uses_the_file_name(tmp_path: Path) -> None:
    benchmark = small(PACS)
    for domain in benchmark.images:
        rows = [(data, name, label, None) for data, name, label, of in rows_of(benchmark) if of == domain]
        table(tmp_path / "hub" / f"{domain}-00000-of-00001.parquet", rows, {"label": PACS.classes})
    assert len(installed(benchmark, tmp_path / "out", tmp_path / "hub")) == benchmark.total


def test_numbers_without_names_broken_files_and_missing_columns_are_refused(tmp_path: Path) -> None:
    benchmark = small(PACS)
    refused(benchmark, tmp_path / "o", table(tmp_path / "a.parquet", rows_of(benchmark), {}), "does not define label")
    complete = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(complete[: len(complete) // 2])
    refused(benchmark, tmp_path / "o", tmp_path / "b.parquet", "cannot be read")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "c.parquet")
    refused(benchmark, tmp_path / "o", tmp_path / "c.parquet", "lacks a column")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = table(tmp_path / "a.parquet", rows_of(PACS), {"label": PACS.classes})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"vl2v\[parquet\]"):
        get(PACS, tmp_path / "out", choose(PACS, str(source)))


def test_the_memory_for_reading_parquet_does_not_depend_on_the_rows(tmp_path: Path) -> None:
    rows = [(image(i) + bytes(200_000), f"{i}.png", 0, "photo") for i in range(400)]
    source = table(tmp_path / "big.parquet", rows, {"label": PACS.classes}, group=20)
    assert source.stat().st_size > 80_000_000
    code = (
        "import sys, pyarrow; from pathlib import Path; from vl2v.data.parquet_images import rows\n"
        "assert sum(1 for _ in rows(Path(sys.argv[1]))) == 400\n"
        "print(pyarrow.default_memory_pool().max_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(source)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40_000_000


def camera_traps(benchmark: Benchmark) -> tuple[dict[str, list[Any]], dict[str, bytes], dict[str, bytes]]:
    """Return annotations, their images, and the expected paths of these."""
    categories = [{"id": i, "name": name} for i, name in enumerate([*benchmark.classes, "car"])]
    images: list[Any] = []
    annotations: list[Any] = []
    pictures: dict[str, bytes] = {}
    expected: dict[str, bytes] = {}

    def add(location: object, labels: list[int], n: int) -> str:
        name = f"{n:08x}.jpg"
        pictures[f"eccv_18_all_images_sm/{name}"] = image(n)
        images.append({"id": f"id{n}", "file_name": name, "location": location})
        annotations.extend({"image_id": f"id{n}", "category_id": label} for label in labels)
        return name

    n = 0
    for domain in benchmark.images:
        site = domain.removeprefix("location_")
        for label, folder in enumerate(benchmark.classes):
            for _ in range(2):
                location = site if n % 2 else int(site)  # text in one release, a number in the other
                name = add(location, [label, label], n)
                expected[f"{domain}/{folder}/{name}"] = image(n)
                n += 1
    add("7", [0], n)  # another location
    add("38", [len(benchmark.classes)], n + 1)  # another class
    add("38", [], n + 2)
    return {"images": images, "annotations": annotations, "categories": categories}, pictures, expected


def test_camera_traps_become_locations_and_classes(tmp_path: Path) -> None:
    benchmark = small(TERRA_INCOGNITA)
    notes, pictures, expected = camera_traps(benchmark)
    source = tmp_path / "source"
    source.mkdir()
    zipped(source / "caltech_camera_traps.json.zip", {"caltech_images_20210113.json": json.dumps(notes).encode()})
    tarred(source / "eccv_18_all_images_sm.tar.gz", pictures)
    assert installed(benchmark, tmp_path / "out", source) == expected


def test_camera_trap_annotations_in_several_files_of_a_tar_are_read(tmp_path: Path) -> None:
    benchmark = small(TERRA_INCOGNITA)
    notes, pictures, expected = camera_traps(benchmark)
    files = {}
    for part in range(2):
        annotated = notes["images"][part::2]
        names = {entry["id"] for entry in annotated}
        annotations = [a for a in notes["annotations"] if a["image_id"] in names]
        content = {"images": annotated, "annotations": annotations, "categories": notes["categories"]}
        files[f"eccv_18_annotation_files/part{part}.json"] = json.dumps(content).encode()
    source = tmp_path / "source"
    source.mkdir()
    tarred(source / "eccv_18_annotations.tar.gz", files)
    tarred(source / "eccv_18_all_images_sm.tar.gz", pictures)
    assert installed(benchmark, tmp_path / "out", source) == expected


def test_an_image_of_two_classes_is_in_both(tmp_path: Path) -> None:
    benchmark = small(TERRA_INCOGNITA)
    notes, pictures, expected = camera_traps(benchmark)
    name = next(iter(pictures)).split("/")[1]
    notes["annotations"].append({"image_id": "id0", "category_id": 1})
    domain = next(iter(benchmark.images))
    benchmark = replace(benchmark, images={**benchmark.images, domain: benchmark.images[domain] + 1})
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    for path, data in pictures.items():
        (folder / "images" / path.split("/")[1]).write_bytes(data)
    (folder / "notes.json").write_text(json.dumps(notes))
    got = installed(benchmark, tmp_path / "out", folder)
    assert got == expected | {f"{domain}/bobcat/{name}": image(0)}


def test_json_that_is_not_an_annotation_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.json").write_text('{"images": []}')
    refused(TERRA_INCOGNITA, tmp_path / "out", folder, "not a COCO Camera Traps file")


def domain_net() -> Benchmark:
    """Return DomainNet with three classes whose names are not listed, as in the real one."""
    images = dict.fromkeys(DOMAIN_NET.images, 6)
    return replace(DOMAIN_NET, images=images, class_count=3, download_bytes=1)


def test_the_six_zips_of_domain_net_are_read_with_their_lists(tmp_path: Path) -> None:
    benchmark = domain_net()
    source = tmp_path / "source"
    source.mkdir()
    expected = {}
    for d, domain in enumerate(benchmark.images):
        files = {
            f"{domain}/{label}/{domain}_{c:03d}_{n:06d}.jpg": image(100 * d + 10 * c + n)
            for c, label in enumerate(("aircraft_carrier", "t-shirt", "The_Eiffel_Tower"))
            for n in range(3)
        }
        zipped(source / f"{domain}.zip", files)
        cleaned = {path: data for path, data in files.items() if not path.endswith("2.jpg")}  # the cleaned lists
        expected.update(cleaned)
        lines = [f"{path} {i}\n" for i, path in enumerate(cleaned)]
        (source / f"{domain}_train.txt").write_text("".join(lines[::2]))
        (source / f"{domain}_test.txt").write_text("".join(lines[1::2]))
    assert installed(benchmark, tmp_path / "out", source) == expected
    for path in source.glob("*.txt"):
        path.unlink()
    refused(benchmark, tmp_path / "again", source, "clipart: expected 6 images, found 9 images")


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "photo/../../evil.png", "..\\evil.png", "C:\\e.png"])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_with_paths_outside_itself_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    benchmark = small(PACS)
    files = files_of(benchmark) | {name: image(9)}
    source = (zipped if kind == "zip" else tarred)(tmp_path / f"p.{kind}", files)
    refused(benchmark, tmp_path / "deep" / "out", source, "contains a path outside itself")
    assert list(tmp_path.rglob("evil.png")) == []


def test_links_in_a_tar_are_never_followed(tmp_path: Path) -> None:
    benchmark = small(PACS)
    secret = tmp_path / "secret.png"
    secret.write_bytes(image(77))
    source = tmp_path / "p.tar"
    with tarfile.open(source, "w") as archive:
        link = tarfile.TarInfo("photo/dog/5.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        for name, data in files_of(benchmark).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert installed(benchmark, tmp_path / "out", source) == files_of(benchmark)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = small(PACS)
    monkeypatch.setattr(
        "vl2v.datasets.get.shutil.rmtree", lambda *_: None
    )  # written images are not deleted, and they are counted
    bomb = {f"photo/dog/bomb{n}.png": image(n) + bytes(30 << 20) for n in range(3)}
    source = (zipped if kind == "zip" else tarred)(tmp_path / f"p.{kind}", bomb | files_of(benchmark))
    refused(benchmark, tmp_path / "out", source, "decompression bomb")
    written = [path for path in (tmp_path / ".out.partial").rglob("*") if path.is_file()]
    assert written
    assert sum(path.stat().st_size for path in written) < 70 << 20


def test_a_zip_with_a_wrong_size_is_refused(tmp_path: Path) -> None:
    source = zipped(tmp_path / "p.zip", {"photo/dog/0.png": image(0) + bytes(5000)})
    data = bytearray(source.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 40)
    source.write_bytes(bytes(data))
    refused(small(PACS), tmp_path / "out", source, "cannot be unpacked")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar"])
def test_a_broken_archive_is_refused(tmp_path: Path, kind: str) -> None:
    complete = (zipped if kind == "zip" else tarred)(tmp_path / "whole", files_of(small(PACS))).read_bytes()
    source = tmp_path / f"p.{kind}"
    source.write_bytes(complete[: len(complete) // 2] if kind != "tar" else b"no tar")
    refused(small(PACS), tmp_path / "out", source, "cannot be unpacked")


def test_a_file_with_the_suffix_of_an_image_and_other_content_is_refused(tmp_path: Path) -> None:
    files = files_of(small(PACS)) | {"photo/dog/1.png": b"<html>gone</html>"}
    refused(small(PACS), tmp_path / "out", zipped(tmp_path / "p.zip", files), "photo/dog/1.png is not an image")


def test_two_different_images_of_one_name_are_refused_and_a_copy_is_not(tmp_path: Path) -> None:
    benchmark = small(PACS)
    files = files_of(benchmark, "a/")
    assert (
        len(installed(benchmark, tmp_path / "same", zipped(tmp_path / "p.zip", files | files_of(benchmark, "b/"))))
        == 56
    )
    clash = files | {"b/photo/dog/1.png": image(12345)}
    refused(
        benchmark, tmp_path / "out", zipped(tmp_path / "q.zip", clash), "Two different images have the path photo/dog"
    )


def test_files_outside_the_layout_are_skipped_and_reported(tmp_path: Path) -> None:
    benchmark = small(PACS)
    files = files_of(benchmark) | {"quickdraw/dog/1.png": image(0), "photo/zebra/1.png": image(1)}
    notes = MessageRecorder()
    get(benchmark, tmp_path / "out", choose(benchmark, str(zipped(tmp_path / "p.zip", files))), progress=notes)
    expected = "2 images skipped, no known <domain>/<class>/, e.g. quickdraw/dog/1.png"
    assert notes.lines == [expected]


@pytest.mark.parametrize("kind", ["a file", "a folder with files", "an existing benchmark"])
def test_an_existing_folder_is_refused_unchanged(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "a file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / ("benchmark.json" if "benchmark" in kind else "mine.txt")).write_text("{}")
    with pytest.raises(ConfigError, match=kind):
        get(PACS, out, choose(PACS, str(zipped(tmp_path / "p.zip", files_of(small(PACS))))))
    assert not (tmp_path / ".out.partial").exists()


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    benchmark = small(PACS)
    assert installed(benchmark, tmp_path / "out", zipped(tmp_path / "p.zip", files_of(benchmark))) == files_of(
        benchmark
    )


def test_remains_of_a_command_killed_at_its_end_are_removed(tmp_path: Path) -> None:
    benchmark = small(PACS)
    source = choose(benchmark, str(zipped(tmp_path / "p.zip", files_of(benchmark))))
    get(benchmark, tmp_path / "out", source)
    (tmp_path / ".out.partial" / "downloads").mkdir(parents=True)
    with pytest.raises(ConfigError, match="an existing benchmark"):
        get(benchmark, tmp_path / "out", source)
    assert not (tmp_path / ".out.partial").exists()


def test_the_current_folder_can_be_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = small(PACS)
    source = choose(benchmark, str(zipped(tmp_path / "p.zip", files_of(benchmark))))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    get(benchmark, Path(), source)
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == sorted(["benchmark.json", *benchmark.images])


def test_another_source_does_not_continue_a_partial_installation(tmp_path: Path) -> None:
    benchmark = small(PACS)
    files = files_of(benchmark)
    downloads = tmp_path / ".out.partial" / "downloads"
    downloads.mkdir(parents=True)
    (downloads.parent / "task.json").write_text("another source")
    (downloads / "PACS.zip.part").write_bytes(b"PK")
    other = zipped(tmp_path / "q.zip", files)
    with pytest.raises(ConfigError, match="There is an unfinished download"):
        get(benchmark, tmp_path / "out", choose(benchmark, str(other)))
    (downloads / "PACS.zip.part").unlink()
    assert installed(benchmark, tmp_path / "out", other) == files


def test_a_repaired_source_is_accepted(tmp_path: Path) -> None:
    benchmark = small(PACS)
    files = files_of(benchmark)
    refused(
        benchmark, tmp_path / "out", zipped(tmp_path / "p.zip", dict(list(files.items())[:9])), "does not match PACS"
    )
    assert not (tmp_path / ".out.partial").exists()
    assert installed(benchmark, tmp_path / "out", zipped(tmp_path / "p.zip", files)) == files


@pytest.mark.system
def test_the_real_pacs_is_the_same_as_a_folder_and_as_parquet(tmp_path: Path, shared: Path) -> None:
    folder = shared / "data" / "PACS"
    if not folder.is_dir():
        pytest.skip("PACS is not in the maintainers' folder")
    rows = [
        (path.read_bytes(), path.name, PACS.classes.index(path.parent.name), path.parent.parent.name)
        for path in sorted(folder.glob("*/*/*"))
    ]
    table(tmp_path / "hub" / "train-00000-of-00001.parquet", rows, {"label": PACS.classes}, group=100)
    copied = get(PACS, tmp_path / "copy", choose(PACS, str(folder)))
    from_parquet = get(PACS, tmp_path / "table", choose(PACS, str(tmp_path / "hub")))
    assert copied["digest"] == from_parquet["digest"] == check(PACS, folder).digest
    shutil.rmtree(tmp_path)


def test_a_full_disk_is_reported_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="does not fit on the disk"):
        get(replace(PACS, download_bytes=1 << 60), tmp_path / "out", choose(PACS, "hub"))
    assert list(tmp_path.iterdir()) == []


def test_every_form_of_a_source_is_parsed(tmp_path: Path) -> None:
    assert choose(PACS, None).hub == "flwrlabs/pacs"
    assert choose(PACS, None).revision == PACS.revision
    assert choose(VLCS, None).archives == VLCS.archives
    assert choose(PACS, "official").archives == PACS.archives
    other = choose(PACS, "someone/pacs@v2")
    assert (other.hub, other.revision) == ("someone/pacs", "v2")
    assert choose(PACS, "https://x.org/a/PACS.zip?x=1").archives[0].name == "PACS.zip"
    assert choose(PACS, str(tmp_path)).local == tmp_path
    for wrong in (str(tmp_path / "none.zip"), "data/none.zip", "nothing"):
        with pytest.raises(ConfigError, match="Unknown source in --from"):
            choose(PACS, wrong)
    with pytest.raises(ConfigError, match="no complete dataset on the hub"):
        choose(VLCS, "hub")


def test_the_digest_is_of_paths_and_contents() -> None:
    files = [("a/b/1.png", "00"), ("a/b/2.png", "01")]
    digest = tree_digest(files)
    assert digest == tree_digest(reversed(files))
    assert digest != tree_digest([("a/b/1.png", "01"), ("a/b/2.png", "00")])
    assert digest != tree_digest([("a/c/1.png", "00"), ("a/b/2.png", "01")])
