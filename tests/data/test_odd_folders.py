"""Odd folders are read as intended or refused with a reason. No image is silently ignored and nothing hangs."""

from __future__ import annotations

import os
import shutil
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import encoded, folder_of, noise, put

from vl2v.config import DataConfig
from vl2v.data.contents import Contents
from vl2v.data.folder import DomainFolder, FaultyDataError, unlabelled_images
from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex
from vl2v.errors import ConfigError, DataError
from vl2v.planning.prepare import list_folder
from vl2v.planning.split import check_domains, match_domains, split_dataset
from vl2v.sources.registry import find_source
from vl2v_runtime.inputs import each, search
from vl2v_runtime.names import printable, quoted, shown
from vl2v_runtime.walking import walk

STRAY = os.fsdecode(b"gr\xfcn.png")


def flat(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 2) -> Path:
    for i, name in enumerate(classes):
        for j in range(each):
            put(root / name / f"{j}.png", 100 * i + j)
    return root


def faults(root: Path, *, skip_bad: bool = False, as_found: bool = False) -> dict[str, str]:
    with pytest.raises(FaultyDataError) as caught:
        DomainFolder(root, as_found=as_found).scan(skip_bad=skip_bad)
    return {fault.where: fault.problem for fault in caught.value.faults}


@pytest.mark.parametrize("name", [" ", "___", "- -", "\u3000"])
def test_a_class_needs_a_name_with_letters_or_a_description(tmp_path: Path, name: str) -> None:
    root = flat(tmp_path / "data", ("cat", name))
    assert faults(root) == {repr(name): "a class name without letters"}
    (root / "classes.yaml").write_text(f"'{name}': empty plate\n", encoding="utf-8")
    assert DomainFolder(root).scan().phrases == tuple(p for _, p in sorted([("cat", "cat"), (name, "empty plate")]))


def test_one_class_can_be_evaluated_but_not_trained_on(tmp_path: Path) -> None:
    root = flat(tmp_path / "data", ("cat",))
    table = tmp_path / "data.csv"
    table.write_text("path,label\ndata/cat/0.png,cat\ndata/cat/1.png,cat\n")
    for data in (root, table):
        config = DataConfig(root=data)
        assert list_folder(config, layout_known=True).scan().names == ("cat",)
        with pytest.raises(FaultyDataError, match="the only class"):
            list_folder(config).scan()


def test_a_run_is_no_dataset_of_another_tool(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"step": 3}')
    assert find_source(str(tmp_path)) is None
    (tmp_path / "state.json").write_text('{"_data_files": []}')
    assert find_source(str(tmp_path)) is not None


# Links


@pytest.mark.parametrize("target", [".", "..", "../..", "../dog", "../../photo", "/", "again"])
def test_a_link_never_adds_images_of_another_class_or_duplicates(tmp_path: Path, target: str) -> None:
    root = folder_of(tmp_path / "data")
    expected = DomainFolder(root).scan()
    for name in ("again", "self", "more"):
        (root / "art" / "cat" / name).symlink_to(target)
    messages = faults(root)
    assert set(messages) == {f"art/cat/{name}" for name in ("again", "self", "more")}
    dataset = DomainFolder(root).scan(skip_bad=True)
    assert dataset.paths == expected.paths
    assert dataset.labels.tolist() == expected.labels.tolist()
    assert len(search(root)[0]) == 8


def test_links_to_other_folders_are_followed_once(tmp_path: Path) -> None:
    root, pool = folder_of(tmp_path / "data"), tmp_path / "pool"
    put(pool / "x.png", 60)
    put(pool / "deeper" / "y.png", 61)
    (pool / "back").symlink_to(root / "art" / "dog")
    (pool / "deeper" / "up").symlink_to(pool)
    (root / "art" / "cat" / "more").symlink_to(pool)
    (root / "photo" / "dog" / "more").symlink_to(pool)
    tree = walk(root)
    assert [path for path in tree.images() if "more" in path] == ["art/cat/more/x.png", "art/cat/more/deeper/y.png"]
    messages = {skipped.path: skipped.problem for skipped in tree.all_skipped()}
    assert messages.keys() == {"photo/dog/more", "art/cat/more/back", "art/cat/more/deeper/up"}
    assert "art/cat/more, whose images are read already" in messages["photo/dog/more"]


def test_linked_class_folders_and_files_are_followed_and_an_alias_is_a_fault(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data")
    shutil.move(root / "art" / "cat", tmp_path / "elsewhere")
    (root / "art" / "cat").symlink_to(tmp_path / "elsewhere")
    put(tmp_path / "file.png", 70)
    (root / "art" / "dog" / "linked.png").symlink_to(tmp_path / "file.png")
    assert len(DomainFolder(root).scan()) == 9
    (root / "art" / "kitten").symlink_to("cat")
    assert list(faults(root)) == ["art/kitten"]


def test_links_to_nothing_and_onto_themselves_are_faults(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    (root / "art" / "cat" / "gone.png").symlink_to("/nonexistent/a.png")
    (root / "art" / "cat" / "itself.png").symlink_to("itself.png")
    (root / "photo" / "gone").symlink_to("/nonexistent/folder")
    messages = faults(root)
    assert messages.keys() == {"art/cat/gone.png", "art/cat/itself.png", "photo/gone"}
    assert all(problem.startswith("cannot be read") for problem in messages.values())


def test_a_file_under_two_names_is_two_files(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    os.link(root / "art" / "cat" / "0.png", root / "art" / "cat" / "hard.png")
    assert len(DomainFolder(root).scan()) == 9


# Files that are not images, or images of an unsupported format


def test_pipes_sockets_and_devices_do_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path)
    monkeypatch.chdir(root / "art" / "cat")
    os.mkfifo("pipe.png")
    os.mkfifo("pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket.jpg")
    server.close()
    Path("zero.png").symlink_to("/dev/zero")
    messages = faults(root)
    assert messages == {
        "art/cat/pipe.png": "a named pipe, not an image",
        "art/cat/socket.jpg": "a socket, not an image",
        "art/cat/zero.png": "a device, not an image",
    }


@pytest.mark.parametrize("name", ["web.jfif", "web.JPE", "noext", "photo.1", "Mr. Smith", "1234567890_n"])
def test_jpegs_are_read_with_any_suffix(tmp_path: Path, name: str) -> None:
    root = flat(tmp_path)
    (root / "cat" / name).write_bytes(encoded(noise(9), "JPEG"))
    assert f"cat/{name}" in DomainFolder(root).scan().paths
    assert root / "cat" / name in search(root)[0]


def test_images_of_other_formats_and_under_other_suffixes_are_faults(tmp_path: Path) -> None:
    root = flat(tmp_path)
    for name, data in {
        "a.tga": encoded(noise(1), "TGA"),
        "b.DNG": b"x",
        "c": b"8BPS" + bytes(60),
        "d.bak": encoded(noise(2), "PNG"),
        "e.dat": encoded(noise(3), "GIF"),
        "f.txt": b"a caption",
        "g.xyz": b"numbers",
        "README": b"BM is not a bitmap here, is it?",
    }.items():
        (root / "dog" / name).write_bytes(data)
    messages = faults(root)
    assert {where.removeprefix("dog/") for where in messages} == {"a.tga", "b.DNG", "c", "d.bak", "e.dat"}
    assert "PNG image with the wrong suffix" in messages["dog/d.bak"]
    assert len(DomainFolder(root).scan(skip_bad=True)) == 4
    assert "skipped 5 files" in search(root)[1]


# Folders without images


@pytest.mark.parametrize("layout", ["flat", "deep"])
@pytest.mark.parametrize("content", ["empty", "tga"])
def test_a_class_or_domain_without_images_is_never_ignored(tmp_path: Path, layout: str, content: str) -> None:
    root = flat(tmp_path) if layout == "flat" else folder_of(tmp_path)
    gone = root / "gone"
    gone.mkdir()
    if layout == "deep":
        (gone / "cat").mkdir()
    if content == "tga":
        (gone / ("" if layout == "flat" else "cat") / "a.tga").write_bytes(encoded(noise(1), "TGA"))
    kind = "class" if layout == "flat" else "domain"
    assert faults(root)["gone"] == f"a {kind} folder without images"
    folder = DomainFolder(root, as_found=True)
    assert folder.scan(skip_bad=True).warnings == (f"gone: a {kind} folder without images",)


def test_a_folder_of_other_files_is_warned_about(tmp_path: Path) -> None:
    root = flat(tmp_path)
    (root / "annotations").mkdir()
    (root / "annotations" / "a.xml").write_text("<x/>")
    assert DomainFolder(root).scan().warnings == ("annotations contains no images and is ignored",)


def test_a_folder_of_only_unsupported_images_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.tga").write_bytes(encoded(noise(1), "TGA"))
    with pytest.raises(DataError, match=r"cat/a\.tga: an unsupported format"):
        DomainFolder(tmp_path)


def test_a_folder_that_cannot_be_listed_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path)
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("photo/dog"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert faults(root)["photo/dog"] == "a folder that cannot be listed (Permission denied)"


# One walk for training and for predict


def litter(root: Path) -> None:
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        put(folder / ".ipynb_checkpoints" / "a.png", 80)
        put(folder / "@eaDir" / "SYNO_THUMB.jpg", 81)
        put(folder / "__MACOSX" / "cat" / "x.png", 82)
        (folder / "._0.png").write_bytes(b"\0\5\x16\7")
        (folder / ".DS_Store").write_bytes(b"\0")
        (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        (folder / "desktop.ini").write_text("[x]")


def test_predict_and_the_scan_find_the_same_images(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data")
    put(tmp_path / "pool" / "x.png", 60)
    (root / "art" / "cat" / "linked").symlink_to(tmp_path / "pool")
    expected = DomainFolder(root).scan().paths
    litter(root)
    (root / "art" / "cat" / "loop").symlink_to("..")
    dataset = DomainFolder(root).scan(skip_bad=True)
    assert dataset.paths == expected
    assert dataset.domains == ("art", "photo")
    paths, left_out = search(root)
    assert sorted(path.relative_to(root).as_posix() for path in paths) == sorted(expected)
    assert left_out.startswith("skipped art/cat/loop: a link or mount that leads to art")
    with pytest.warns(UserWarning, match="skipped art/cat/loop"):
        assert list(each(root)) == paths
    assert unlabelled_images(root, skip_bad=True).paths == [p.relative_to(root).as_posix() for p in walk_order(root)]


def walk_order(root: Path) -> list[Path]:
    return [root / path for path in walk(root).images()]


# Names


def test_images_with_file_names_that_are_not_utf_8_are_read(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data")
    put(root / "art" / "cat" / STRAY, 90)
    index, cache = FileIndex(tmp_path / "c" / "files.sqlite"), PixelCache(tmp_path / "c", 8)
    for _ in range(2):  # the second time from the index
        dataset = DomainFolder(root).scan(index=index, cache=cache)
        assert f"art/cat/{STRAY}" in dataset.paths
    assert dataset.digest()
    assert dataset.read(dataset.paths.index(f"art/cat/{STRAY}"))
    (root / "art" / "cat" / STRAY).write_bytes(b"")
    assert faults(root) == {r"art/cat/gr\xfcn.png": "empty file"}


@pytest.mark.parametrize("level", ["domain", "class"])
def test_class_and_domain_names_that_are_not_utf_8_are_refused(tmp_path: Path, level: str) -> None:
    root = folder_of(tmp_path)
    for domain in [root] if level == "domain" else [root / "art", root / "photo"]:
        name = "art" if level == "domain" else "cat"
        (domain / name).rename(domain / os.fsdecode(b"k\xe4se"))
    messages = faults(root)
    assert messages[r"k\xe4se"] == f"a {level} name that is not UTF-8"


def test_names_are_shown_on_one_line_and_quoted_for_a_shell() -> None:
    assert shown("a\nb\x1b[31m\u202ec") == r"a\nb\x1b[31m\u202ec"
    assert shown("naïve-日本 [bold] 👩\u200d👩") == "naïve-日本 [bold] 👩\u200d👩"
    assert printable("gr\udcfcn\n") == "gr\\xfcn\n"
    assert quoted("naïve 日本/lauf") == "'naïve 日本/lauf'"
    assert quoted("gr\udcfcn") == r"$'gr\xfcn'"


def test_held_out_domains_match_in_any_unicode_spelling(tmp_path: Path) -> None:
    nfd, nfc = (unicodedata.normalize(form, "hélène") for form in ("NFD", "NFC"))
    root = folder_of(tmp_path, (nfd, "other"), each=5)
    assert match_domains([nfc], (nfd, "other")) == (nfd,)
    assert check_domains([nfc], (nfd, "other")) == (nfd,)
    config = DataConfig(root=root, held_out=(nfc,))
    split = split_dataset(list_folder(config).scan(), config, 0)
    assert split.sources == ("other",)
    assert list(split.test) == [nfd]
    with pytest.raises(ConfigError, match="Unknown domain"):
        check_domains(["helene"], (nfd, "other"))


# classes.yaml


@pytest.mark.parametrize(
    ("classes", "text", "phrases"),
    [
        (("0", "1"), "0: round ball\n1: square box\n", ("round ball", "square box")),
        (("no", "yes"), "no: a red cross\nyes: a green tick\n", ("a red cross", "a green tick")),
        (("2024-01-01", "x"), "2024-01-01: new year\n", ("new year", "x")),
        (("010", "8"), "010: eight\n", ("eight", "8")),
        (("1e3", "null"), "1e3: many\nnull: nothing\n", ("many", "nothing")),
        (("c01", "c02"), "c01: 7\n", ("7", "c02")),
        (("c01", "c02"), "c01: yes\n", ("yes", "c02")),
        ((unicodedata.normalize("NFD", "café"), "x"), "café: a coffee house\n", ("a coffee house", "x")),
        (("a", "b"), "\ufeffa: one\r\nb: two\r\n", ("one", "two")),
    ],
)
def test_keys_of_classes_yaml_are_read_as_texts(
    tmp_path: Path, classes: tuple[str, ...], text: str, phrases: object
) -> None:
    root = folder_of(tmp_path, classes=classes)
    (root / "classes.yaml").write_bytes(text.encode())
    assert DomainFolder(root).phrases == phrases


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat: caf\u00e9\n".encode("latin-1"), "save the file as UTF-8"),
        ("cat: pet\n".encode("utf-16"), "save the file as UTF-8"),
        ("cat: pet\n".encode("utf-16-le"), "save the file as UTF-8"),
        (b"cat: a\ncat: b\n", "given twice"),
        (b"cat: ~\n", "both text .printable"),
        (b"cat: {a: b}\n", "both text .printable"),
        (b"[" * 3000, "is not valid"),
        (b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\ncat: [*c,*c]\n", "both text .printable"),
        (b"!!python/object/apply:os.system ['true']: x\n", "cannot be used|is not valid"),
    ],
)
def test_unusable_classes_yaml_is_refused_with_a_next_step(tmp_path: Path, text: bytes, message: str) -> None:
    root = folder_of(tmp_path)
    (root / "classes.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        DomainFolder(root)


def test_classes_yml_is_read_and_two_files_are_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    (root / "classes.yml").write_text("cat: kitten\n")
    assert DomainFolder(root).phrases == ("kitten", "dog")
    (root / "classes.yaml").write_text("cat: tomcat\n")
    with pytest.raises(ConfigError, match="two files"):
        DomainFolder(root)


@pytest.mark.parametrize("target", ["gone", "/dev/zero", "photo"])
def test_descriptions_that_cannot_be_read_are_not_ignored(tmp_path: Path, target: str) -> None:
    root = folder_of(tmp_path)
    (root / "classes.yaml").symlink_to(target)
    with pytest.raises(ConfigError, match=r"classes\.yaml"):
        DomainFolder(root)


# Archives


@pytest.mark.parametrize("name", ["photo/bird.zip", "line.tar.gz", "art/cat/MORE.RAR", "photo.v2.7z"])
def test_archives_are_reported(tmp_path: Path, name: str) -> None:
    root = folder_of(tmp_path / "data")
    (root / name).write_bytes(b"PK")
    assert faults(root) == {name: "an archive, whose images are not read"}
    assert DomainFolder(root).faults[0].remedy == "unpack it or move it away, or skip it: --skip-bad"
    notes = (f"{name}: an archive, whose images are not read",)
    assert list_folder(DataConfig(root=root), layout_known=True).scan().warnings == notes
    assert unlabelled_images(root).warnings == notes
    assert len(DomainFolder(root).scan(skip_bad=True)) == 8
    images, left_out = search(root)
    assert len(images) == 8
    assert left_out == f"skipped {name}: an archive, whose images are not read"


def test_archives_that_are_unpacked_already_are_not_reported(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data")
    for name in ("data.zip", "art.tar", "art/cat.tgz", "art/cat/cat.zip", ".hidden.zip", "labels.csv.gz"):
        (root / name).write_bytes(b"PK")
    assert DomainFolder(root).faults == []
    assert search(root)[1] == ""


def test_a_folder_of_archives_is_refused_with_a_next_step(tmp_path: Path) -> None:
    for name in ("art", "photo"):
        (tmp_path / f"{name}.zip").write_bytes(b"PK")
    with pytest.raises(DataError) as caught:
        DomainFolder(tmp_path)
    assert caught.value.next_step == "unpack the archives"


# Guessed layouts


def make(*paths: str) -> Callable[[Path], Path]:
    def made(root: Path) -> Path:
        for i, path in enumerate(paths):
            for j in range(2):
                put(root / path / f"{j}.png", 10 * i + j)
        return root

    return made


CLASSES = ("cat", "dog")
SPLITS = make(*(f"{split}/{name}" for split in ("val", "test") for name in CLASSES))
DEEPER = make(*(f"all/{d}/{name}" for d in ("art", "photo") for name in CLASSES))
YEARS = make("cat/2023", "cat/2024", "dog/2023", "dog/2024")
CLASS_FIRST = make(*(f"{name}/{d}" for name in CLASSES for d in ("art_painting", "photo", "Camera 2")))


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        (SPLITS, "splits of one dataset"),
        (DEEPER, "read as a class"),
        (YEARS, "a date, read as a class"),
        (CLASS_FIRST, "read as classes, but named like domains"),
    ],
)
def test_guessed_layouts_are_refused_unless_accepted(
    tmp_path: Path, layout: Callable[[Path], Path], problem: str
) -> None:
    root = layout(tmp_path)
    assert any(problem in messages for messages in faults(root).values())
    config = DataConfig(root=root, layout_as_found=True)
    assert any(problem in warning for warning in list_folder(config).scan().warnings)
    assert list_folder(DataConfig(root=root), layout_known=True).scan().paths


def test_classes_above_domains_are_read(tmp_path: Path) -> None:
    root = CLASS_FIRST(tmp_path)
    config = DataConfig(root=root, class_first=True, held_out=("photo",))
    dataset = list_folder(config).scan()
    assert (dataset.domains, dataset.folders) == (("Camera 2", "art_painting", "photo"), CLASSES)
    for path, label, domain in zip(dataset.paths, dataset.labels, dataset.domain_of, strict=True):
        assert path.split("/")[:2] == [CLASSES[label], dataset.domains[domain]]
    assert not dataset.warnings
    message = Contents.of(dataset, class_first=True).lines()
    assert "  folders: class/domain/image" in message
    with pytest.raises(ConfigError, match=r"art_painting, photo are classes: .* add --class-first"):
        list_folder(config.model_copy(update={"class_first": False}))
    with pytest.raises(ConfigError, match=r"are classes: .* omit --class-first"):
        list_folder(config.model_copy(update={"held_out": ("cat",)}))


def test_both_orders_of_the_levels_are_the_same_dataset(tmp_path: Path) -> None:
    below = folder_of(tmp_path / "below")
    for image in below.glob("*/*/*"):
        domain, name, file = image.relative_to(below).parts
        above = tmp_path / "above" / name / domain / file
        above.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, above)
    parts = [
        list_folder(DataConfig(root=tmp_path / name, class_first=name == "above")).scan() for name in ("below", "above")
    ]
    for key in ("digests", "labels", "domain_of"):
        assert getattr(parts[0], key).tolist() == getattr(parts[1], key).tolist()
    assert Contents.of(parts[0]).lines()[1] == "  folders: domain/class/image"


def test_faults_of_classes_above_domains_name_the_levels(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    put(root / "single" / "0.png", 9)
    (root / "art" / "empty").mkdir()
    messages = dict.fromkeys(f"{f.where}: {f.problem}" for f in DomainFolder(root, class_first=True).faults)
    assert "art/empty: a domain folder without images" in messages
    assert "single: images next to or instead of domain folders" in messages
    assert "images without a domain folder in a class folder" in {
        f.problem for f in DomainFolder(flat(tmp_path / "flat"), class_first=True).faults
    }


def test_usual_layouts_are_accepted(tmp_path: Path) -> None:
    for i, layout in enumerate(
        [
            make("art/cat/2023", "art/cat/2024", "art/dog/2023", "art/dog/2024"),  # dates below the classes
            make("2023/cat", "2023/dog", "2024/cat", "2024/dog"),  # a year is a domain
            make("test/cat", "test/dog", "field/cat", "field/dog"),
            make("train/cat", "train/dog"),
            make("art/photo", "art/sketch", "real/photo", "real/sketch"),  # both levels have names of domains
            make("field/day", "field/cat", "lab/day", "lab/cat"),
        ]
    ):
        folder = DomainFolder(layout(tmp_path / str(i)))
        assert folder.faults == []
        assert folder.scan().warnings == ()


def test_one_picture_in_two_classes_is_warned_about(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    shutil.copy(root / "art" / "cat" / "0.png", root / "photo" / "dog" / "copy.png")
    (warning,) = DomainFolder(root).scan().warnings
    assert warning.startswith("1 image is in two classes")
    assert "art/cat/0.png and photo/dog/copy.png" in warning


def test_faults_are_relative_to_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(flat(tmp_path / "data") / "loose.png", 99)
    monkeypatch.chdir(tmp_path)
    assert faults(Path("data")) == {"loose.png": "an image outside every class folder"}


# Summary of the data


def test_the_summary_lists_domains_classes_and_counts(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", each=3)
    put(root / "art" / "cat" / "more.png", 77)
    messages = Contents.of(DomainFolder(root).scan(), ("photo",))
    assert messages.lines() == [
        f"{root}: 2 domains, 2 classes, 13 images",
        "  folders: domain/class/image",
        "  art: 7 images, 3 to 4 of each class",
        "  photo: 6 images, 3 of each class, held out",
        "  classes: cat, dog",
    ]
    assert messages.to_dict()["domains"][1] == {"name": "photo", "images": 6, "classes": 2, "held_out": True}


def test_many_domains_and_classes_are_abbreviated(tmp_path: Path) -> None:
    names = tuple(f"c{i:02}" for i in range(30))
    dataset = DomainFolder(flat(tmp_path, names, 1)).scan()
    assert Contents.of(dataset).lines()[-1].endswith("c11 and 18 more")


@pytest.mark.parametrize(
    ("names", "message"), [(("0", "1"), "numbers"), (("cat", "nan"), "missing"), (("cat", "7"), "")]
)
def test_class_folders_that_are_not_names_are_reported(tmp_path: Path, names: tuple[str, str], message: str) -> None:
    for name in names:
        put(tmp_path / name / "0.png", 0)
    warnings = DomainFolder(tmp_path).warnings
    assert len(warnings) == bool(message)
    assert all(message in warning for warning in warnings)
    (tmp_path / "classes.yaml").write_text("".join(f"'{name}': thing {name}\n" for name in names))
    assert not DomainFolder(tmp_path).warnings
