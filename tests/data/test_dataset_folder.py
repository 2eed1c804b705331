from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, folder_of, noise, put
from PIL import Image

from vl2v.data.folder import DomainFolder, FaultyDataError, read_mapping, unlabelled_images
from vl2v.errors import ConfigError, DataError
from vl2v_runtime import imaging
from vl2v_runtime.imaging import UnreadableImageError, decode, square


def faults_of(root: Path, *, skip_bad: bool = False) -> dict[str, list[str]]:
    with pytest.raises(FaultyDataError) as caught:
        DomainFolder(root).scan(skip_bad=skip_bad)
    faults: dict[str, list[str]] = {}
    for fault in caught.value.faults:
        faults.setdefault(fault.where, []).append(fault.problem)
        assert fault.remedy
    return faults


def giant_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def test_domain_layout_is_ordered_by_domain_class_and_file(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ("sketch", "art"), ("dog", "cat"))
    dataset = DomainFolder(root).scan()
    assert dataset.domains == ("art", "sketch")
    assert dataset.folders == ("cat", "dog")
    assert dataset.paths == [f"{d}/{c}/{i}.png" for d in ("art", "sketch") for c in ("cat", "dog") for i in range(2)]
    assert dataset.labels.tolist() == [0, 0, 1, 1] * 2
    assert dataset.domain_of.tolist() == [0] * 4 + [1] * 4
    assert dataset.rows_of("sketch").tolist() == [4, 5, 6, 7]
    assert dataset.read(3) == (root / dataset.paths[3]).read_bytes()
    assert len(dataset) == 8
    assert dataset.skipped == ()


def test_the_single_domain_has_the_name_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "animals"
    for i in range(2):
        put(root / "cat" / f"{i}.png", i)
        put(root / "dog" / f"{i}.png", 10 + i)
    dataset = DomainFolder(root).scan()
    assert dataset.domains == ("animals",)
    assert dataset.paths == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert dataset.labels.tolist() == [0, 0, 1, 1]


def test_images_in_deeper_folders_belong_to_their_class_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    put(root / "art" / "cat" / "more" / "x.PNG", 50)
    put(root / "art" / "cat" / ".hidden.png", 51)
    put(root / "art" / ".thumbs" / "y.png", 52)
    (root / "art" / "cat" / "notes.txt").write_text("not an image, and not taken for one")
    paths = DomainFolder(root).scan().paths
    assert "art/cat/more/x.PNG" in paths
    assert len(paths) == 9


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".jpg", "JPEG"), (".jpeg", "JPEG"), (".png", "PNG"), (".webp", "WEBP"), (".bmp", "BMP"), (".tiff", "TIFF")],
)
def test_every_format_is_read(tmp_path: Path, suffix: str, kind: str) -> None:
    root = folder_of(tmp_path)
    data = encoded(Image.new("RGB", (9, 7), (200, 30, 90)), kind)
    (root / "art" / "cat" / f"z{suffix}").write_bytes(data)
    dataset = DomainFolder(root).scan()
    assert f"art/cat/z{suffix}" in dataset.paths
    pixels = np.asarray(decode(data), dtype=np.int64)
    assert pixels.shape == (7, 9, 3)
    assert np.abs(pixels - [200, 30, 90]).max() <= 8  # JPEG and WebP lose a little


def test_a_camera_jpeg_with_a_preview_is_read() -> None:
    out = io.BytesIO()
    noise(1, (16, 8)).save(out, "MPO", save_all=True, append_images=[noise(2, (4, 2))])
    assert decode(out.getvalue()).size == (16, 8)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "LA", "1"])
def test_every_mode_becomes_rgb_of_the_same_brightness(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((5, 6), 128 * 257, dtype=np.uint16))
        assert image.mode == "I;16"
    else:
        image = Image.new("L", (6, 5), 255 if mode == "1" else 128)
        image = image.convert(mode) if mode in ("L", "P", "1", "LA") else image.convert("RGB").convert(mode)
    upright = decode(encoded(image, "TIFF"))
    assert upright.mode == "RGB"
    assert upright.size == (6, 5)
    wanted = 255 if mode == "1" else 128
    assert np.abs(np.asarray(upright, dtype=np.int64) - wanted).max() <= 2


def test_transparent_pixels_are_composited_on_white() -> None:
    rgba = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    rgba.putpixel((1, 0), (10, 20, 30, 0))
    assert np.asarray(decode(encoded(rgba))).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    out = io.BytesIO()
    palette.save(out, "PNG", transparency=1)
    assert np.asarray(decode(out.getvalue())).tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_honoured(orientation: int, turns: int) -> None:
    image = noise(3, (6, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode(out.getvalue())), np.rot90(np.asarray(image), turns))


def test_square_preserves_square_images_and_resizes_others() -> None:
    image = noise(1, (8, 8))
    assert np.array_equal(square(image, 8), np.asarray(image))
    assert square(noise(1, (20, 6)), 8).shape == (8, 8, 3)


def test_paths_bytes_and_images_decode_alike(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", 4)
    first, second, third = decode(path), decode(path.read_bytes()), decode(Image.open(path))
    assert first.tobytes() == second.tobytes() == third.tobytes()


def test_underscores_are_read_as_spaces(tmp_path: Path) -> None:
    dataset = DomainFolder(folder_of(tmp_path, classes=("alarm_clock", "dog"))).scan()
    assert dataset.names == ("alarm clock", "dog")
    assert dataset.phrases == ("alarm clock", "dog")
    assert dataset.folders == ("alarm_clock", "dog")


def test_classes_yaml_gives_phrases_for_prompts_only(tmp_path: Path) -> None:
    root = folder_of(tmp_path, classes=("cat", "mouse"))
    (root / "classes.yaml").write_text("mouse: ' computer mouse '\n")
    dataset = DomainFolder(root).scan()
    assert dataset.phrases == ("cat", "computer mouse")
    assert dataset.names == ("cat", "mouse")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("horse: a horse\n", "horse"),
        ("cat: [a, b\n", "not valid YAML"),
        ("- cat\n- dog\n", "cannot be used"),
        ("cat: '  '\n", "cannot be used"),
        ("", "cannot be used"),
    ],
)
def test_unusable_classes_yaml_is_refused(tmp_path: Path, text: str, part: str) -> None:
    root = folder_of(tmp_path)
    (root / "classes.yaml").write_text(text)
    with pytest.raises(ConfigError, match=part):
        DomainFolder(root)


@pytest.mark.parametrize(
    ("text", "message", "step"),
    [
        ("data:\n\troot: x\n", "line 2: a tab character", "spaces"),
        ("", "an empty file", "write keys and values"),
        ("# nothing\n", "an empty file", "write keys and values"),
        ("words", "a text", "a key and a colon"),
        ("- a\n", "a list", "a key and a colon"),
        ("data: [a\nseed: 1\n", "line 1: a bracket that is not closed", "close"),
        ('seed: "1\n', "line 1: a quote or a bracket that is not closed", "close"),
        ("data: x: y\n", "line 1: a second colon", "quotes"),
        ("data:\n  root: x\n   label: y\n", "line 3: a second colon, or another indentation", "alike"),
        ("data: *x\n", "line 1: a value that begins with *", "quotes"),
        ("data: @x\n", "line 1: a value that begins with @", "quotes"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document", "one document"),
        ("a: !x y\n", "line 1: a tag", "quotes"),
        ("a: 1\na: 2\n", "line 2: the key 'a' is given twice", "keep one"),
    ],
)
def test_a_wrong_file_of_settings_is_refused(tmp_path: Path, text: str, message: str, step: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_mapping(tmp_path / "s.yaml")
    assert caught.value.found.startswith(message)
    assert step in caught.value.next_step
    assert "key: value" in caught.value.expected
    assert "unicode string" not in str(caught.value)


def test_the_line_of_an_error_in_yaml_is_reported(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    (root / "classes.yaml").write_text("cat: a cat\ndog: a: dog\n")
    with pytest.raises(ConfigError, match="line 2"):
        DomainFolder(root)


def test_two_classes_with_the_same_phrase_are_a_fault(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    (root / "classes.yaml").write_text("cat: pet\ndog: pet\n")
    assert faults_of(root) == {"classes.yaml": ["two classes have the description 'pet'"]}


def test_one_scan_lists_all_faults(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ("art", "photo", "sketch"), each=3)
    (root / "art" / "cat" / "empty.png").touch()
    complete = encoded(noise(70, (64, 64)), "JPEG")
    (root / "art" / "cat" / "half.jpg").write_bytes(complete[: len(complete) // 2])
    (root / "art" / "dog" / "text.png").write_text("this is text")
    (root / "photo" / "cat" / "huge.png").write_bytes(giant_png(60_000, 60_000))
    (root / "photo" / "dog" / "scan.tga").write_bytes(encoded(noise(71), "TGA"))
    put(root / "stray.png", 72)
    put(root / "art" / "horse" / "0.png", 73)
    put(root / "sketch" / "Dog" / "0.png", 74)
    put(root / "lonely" / "cat" / "0.png", 75)
    (root / "photo" / "hollow").mkdir()

    faults = faults_of(root)
    assert faults["art/cat/empty.png"] == ["empty file"]
    assert faults["art/cat/half.jpg"][0].startswith("truncated")
    assert faults["art/dog/text.png"][0].startswith("not a JPEG")
    assert faults["photo/cat/huge.png"][0].startswith(imaging.BOMB)
    assert faults["photo/dog/scan.tga"] == ["an unsupported format (.tga)"]
    assert faults["stray.png"] == ["an image outside every class folder"]
    assert faults["photo/hollow"] == ["a class folder without images"]
    assert faults["photo"] == ["no image of class 'horse'"]
    assert faults["sketch"] == ["no image of class 'horse'"]
    assert "a domain with 1 usable image" in faults["lonely"]
    assert "no image of 2 classes: 'Dog', 'horse'" in faults["lonely"]
    spelt = [where for where, problems in faults.items() if problems == ["two spellings of one class"]]
    assert len(spelt) == 1
    assert "sketch/Dog" in spelt[0]
    assert len(faults) == 11


def test_the_message_counts_faults_and_lists_at_most_thirty(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    for i in range(40):
        (root / "art" / "cat" / f"bad{i}.png").touch()
    with pytest.raises(FaultyDataError, match=r"40 faults(.|\n)*and 10 more") as caught:
        DomainFolder(root).scan()
    assert len(caught.value.faults) == 40
    assert caught.value.exit_code == 3


def test_the_limit_on_pixels_is_that_of_vl2v(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(1, (10, 10)))
    monkeypatch.setattr(imaging, "MAX_PIXELS", 100)
    assert decode(data).size == (10, 10)
    monkeypatch.setattr(imaging, "MAX_PIXELS", 99)
    with pytest.raises(UnreadableImageError, match="10 x 10"):
        decode(data)


def test_a_tga_named_png_is_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    (root / "art" / "cat" / "z.png").write_bytes(encoded(noise(1), "TGA"))
    assert list(faults_of(root)) == ["art/cat/z.png"]


def test_skip_bad_continues_and_counts(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    (root / "art" / "cat" / "empty.png").touch()
    (root / "photo" / "dog" / "text.jpg").write_text("text")
    (root / "photo" / "dog" / "scan.tga").write_bytes(encoded(noise(71), "TGA"))
    dataset = DomainFolder(root).scan(skip_bad=True)
    assert len(dataset) == 8
    assert {fault.where for fault in dataset.skipped} == {
        "art/cat/empty.png",
        "photo/dog/text.jpg",
        "photo/dog/scan.tga",
    }
    assert len(dataset.digests) == len(dataset.labels) == len(dataset.domain_of) == 8
    assert dataset.digests.any(axis=1).all()


def test_skip_bad_skips_files_but_not_faults_of_the_layout(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    for path in (root / "art" / "cat").iterdir():
        path.write_bytes(b"")
    assert faults_of(root, skip_bad=True) == {"art/cat": ["a class without usable images"]}


def test_one_class_is_refused(tmp_path: Path) -> None:
    assert faults_of(folder_of(tmp_path, classes=("cat",))) == {"art/cat": ["the only class"]}


def test_images_next_to_class_folders_are_a_fault(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    put(root / "art" / "loose.png", 60)
    assert faults_of(root) == {"art": ["images next to or instead of class folders"]}


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "folders"])
def test_a_root_without_images_is_refused(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "data"
    if kind == "file":
        root.write_text("x")
    elif kind != "missing":
        root.mkdir()
    if kind == "folders":
        (root / "art" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="is not a folder" if kind in ("missing", "file") else "contains no images"):
        DomainFolder(root)


def test_a_folder_of_images_without_class_folders_is_described(tmp_path: Path) -> None:
    for name in "abc":
        put(tmp_path / f"{name}.png", ord(name))
    with pytest.raises(DataError, match="contains images, but no class folders") as caught:
        DomainFolder(tmp_path)
    assert caught.value.found == f"3 images directly in {tmp_path}"
    assert "--classes" in (caught.value.next_step or "")


def test_the_missing_classes_of_a_domain_are_one_fault(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    for i in range(12):
        put(root / "art" / f"extra{i:02}" / "0.png", 80 + i)
    (problem,) = faults_of(root)["photo"]
    assert problem.startswith("no image of 12 classes: 'extra00', 'extra01'")
    assert "extra10" not in problem


def test_missing_classes_can_be_allowed(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    put(root / "art" / "horse" / "0.png", 80)
    assert faults_of(root) == {"photo": ["no image of class 'horse'"]}
    dataset = DomainFolder(root, allow_missing_classes=True).scan()
    assert dataset.folders == ("cat", "dog", "horse")
    assert set(dataset.labels[dataset.rows_of("photo")].tolist()) == {0, 1}


def test_unlabelled_images_are_found_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 1)
    put(tmp_path / "deep" / "er" / "b.png", 2)
    put(tmp_path / ".hidden" / "c.png", 3)
    (tmp_path / "bad.png").touch()
    with pytest.raises(FaultyDataError, match="1 fault in"):
        unlabelled_images(tmp_path)
    dataset = unlabelled_images(tmp_path, skip_bad=True)
    assert dataset.paths == ["a.png", "deep/er/b.png"]
    assert dataset.labels.tolist() == [-1, -1]
    assert [fault.where for fault in dataset.skipped] == ["bad.png"]
    for nowhere, message in (("nothing", "is missing"), ("a.png", "contains no images")):
        with pytest.raises(DataError, match=message):
            unlabelled_images(tmp_path / nowhere)


def test_the_digest_changes_with_a_file_a_label_or_a_name(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    first = DomainFolder(root).scan().digest()
    assert DomainFolder(root).scan().digest() == first
    seen = {first}

    def changed() -> None:
        now = DomainFolder(root).scan().digest()
        assert now not in seen
        seen.add(now)

    put(root / "art" / "cat" / "1.png", 90)  # another content
    changed()
    (root / "art" / "cat" / "1.png").rename(root / "art" / "cat" / "7.png")  # another name
    changed()
    (root / "art" / "cat" / "7.png").rename(root / "art" / "dog" / "7.png")  # another label
    changed()
    (root / "classes.yaml").write_text("cat: kitten\n")  # another phrase
    changed()
    (root / "photo").rename(root / "zoo")  # another domain
    changed()


def test_a_file_changed_since_the_scan_is_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    dataset = DomainFolder(root).scan()
    put(root / dataset.paths[0], 91)
    with pytest.raises(DataError, match="changed"):
        dataset.read(0)
    assert dataset.read(1)
