"""Odd image files are read correctly or refused with a reason, and never silently wrong."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from odd_images import (
    P3,
    PROPHOTO,
    ROTATED_6,
    SIZE,
    broken_exif,
    chunk,
    colours,
    encoded,
    greys,
    png,
    profile,
    stored_in,
    tiff,
)
from PIL import Image

from vl2v_runtime import imaging
from vl2v_runtime.colour import NOTE
from vl2v_runtime.imaging import UnreadableImageError, decode, read_file

EXIF_FORMATS = ("JPEG", "PNG", "WEBP")
GREY = np.asarray(greys())
G16 = GREY.astype(np.uint16) * 257


def off(data: bytes, wanted: Image.Image) -> float:
    """Return the largest difference of a channel between decoded and expected pixels, 0 to 255."""
    read = np.asarray(decode(data), np.int64)
    right = np.asarray(wanted.convert("RGB"), np.int64)
    assert read.shape == right.shape
    return float(np.abs(read - right).max())


def with_exif(kind: str, block: bytes) -> bytes:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    if kind == "PNG":
        data = encoded(colours(), "PNG")
        return data[:33] + chunk(b"eXIf", block) + data[33:]
    return encoded(colours(), kind, exif=b"Exif\0\0" + block, **options)


@pytest.mark.parametrize("kind", EXIF_FORMATS)
@pytest.mark.parametrize("fault", broken_exif())
def test_broken_exif_changes_nothing_and_is_not_warned_about(kind: str, fault: str) -> None:
    data = with_exif(kind, broken_exif()[fault])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert off(data, colours()) <= (12 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", EXIF_FORMATS)
def test_valid_exif_rotates_the_picture(kind: str) -> None:
    assert off(with_exif(kind, ROTATED_6), colours().transpose(Image.Transpose.ROTATE_270)) <= 12


def test_a_picture_with_random_exif_is_still_read() -> None:
    generator = np.random.default_rng(0)
    for i in range(120):
        block = bytearray(ROTATED_6 + b"II*\0" * 4)
        for position in generator.integers(0, len(block), 4):
            block[position] = generator.integers(256)
        size = decode(with_exif(EXIF_FORMATS[i % 3], bytes(block))).size
        assert sorted(size) == sorted(SIZE)


@pytest.mark.parametrize("pointer", [0x7FFFFFFF, 4, 8])
@pytest.mark.parametrize("tag", [34665, 34853, 700, 34377, 42112])
def test_a_tiff_with_a_broken_pointer_to_its_metadata_is_read(tag: int, pointer: int) -> None:
    data = tiff(GREY, extra=struct.pack("<HHII", tag, 4, 1, pointer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert off(data, greys()) == 0


def test_a_tiff_with_broken_metadata_is_still_rotated() -> None:
    data = tiff(GREY, extra=struct.pack("<HHIHHHHII", 274, 3, 1, 6, 0, 34665, 13, 1, 0x7FFFFFFF))
    assert off(data, greys().transpose(Image.Transpose.ROTATE_270)) == 0


@pytest.mark.parametrize(
    "bad",
    [
        chunk(b"eXIf", ROTATED_6, crc=1),
        chunk(b"tEXt", b"Comment\0x", crc=1),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(70_000_000))),
        chunk(b"iTXt", b"Comment\0\1\0\0\0broken"),
        chunk(b"pHYs", b"\0"),
        chunk(b"gAMA", b""),
        chunk(b"iCCP", b"x\0\0broken", crc=1),
    ],
    ids=lambda data: data[4:8].decode(),
)
def test_a_png_with_a_broken_chunk_other_than_pixels_is_read(bad: bytes) -> None:
    data = encoded(colours(), "PNG")
    assert off(data[:33] + bad + data[33:], colours()) == 0


def test_a_broken_picture_is_refused() -> None:
    complete = encoded(colours().resize((200, 200)), "JPEG", exif=b"Exif\0\0broken")
    for data in (complete[: len(complete) // 2], encoded(colours(), "PNG")[:-30], tiff(GREY)[:200]):
        with pytest.raises(UnreadableImageError):
            decode(data)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ((GREY / 255).astype(np.float32), {"kind": 3}),
        (GREY.astype(np.float32), {"kind": 3}),
        ((GREY / 255).astype(np.float32), {"kind": 3, "photometric": 0}),
        ((GREY / 255).astype(np.float32), {"kind": 3, "order": ">"}),
        (GREY.astype(np.int32), {"kind": 2}),
        (G16.astype(np.int32), {"kind": 2}),
        (GREY.astype(np.uint32), {}),
        (GREY.astype(np.uint32) * 16843009, {}),
        (GREY.astype(np.int32) * 8421504, {"kind": 2}),
        ((GREY.astype(np.int64) * 32767 // 255).astype(np.int16), {"kind": 2}),
        (GREY.astype(np.int16), {"kind": 2}),
        (G16, {}),
        (G16, {"order": ">"}),
        (65535 - G16, {"photometric": 0}),
        (255 - GREY, {"photometric": 0}),
    ],
)
def test_deep_greys_and_floats_have_the_brightness_of_their_8_bit_twin(
    values: np.ndarray, options: dict[str, int]
) -> None:
    wanted = Image.fromarray(255 - GREY) if options == {"kind": 3, "photometric": 0} else greys()
    assert off(tiff(values, **options), wanted) <= 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((GREY / 100).astype(np.float32), 3),  # 0 to 2.55: neither of 1 nor of 255
        ((GREY / 255 - 0.1).astype(np.float32), 3),
        (np.where(GREY == 9, np.nan, GREY / 255).astype(np.float32), 3),
        (np.where(GREY == 9, np.inf, GREY / 255).astype(np.float32), 3),
        (GREY.astype(np.float32) * 1e6, 3),
        (GREY.astype(np.int32) * 16, 2),  # 12 bits
        (GREY.astype(np.int32) * 65793, 2),  # 24 bits
        (GREY.astype(np.int32) - 100, 2),
        (GREY.astype(np.int16) * 16, 2),
    ],
)
def test_values_without_a_defined_white_are_refused(values: np.ndarray, kind: int) -> None:
    with pytest.raises(UnreadableImageError, match="the white level is unclear"):
        decode(tiff(values, kind=kind))


@pytest.mark.parametrize("values", [np.zeros((4, 4), np.float32), np.zeros((4, 4), np.int32)])
def test_black_stays_black(values: np.ndarray) -> None:
    assert not np.asarray(decode(tiff(values, kind=3 if values.dtype == np.float32 else 2))).any()


def test_arrays_as_images_follow_the_same_rules() -> None:
    assert off_image(Image.fromarray((GREY / 255).astype(np.float32))) <= 1
    assert off_image(Image.fromarray(GREY.astype(np.int32))) == 0
    with pytest.raises(UnreadableImageError, match="float values from 0 to 2"):
        decode(Image.fromarray((GREY / 100).astype(np.float32)))


def off_image(image: Image.Image) -> int:
    return int(np.abs(np.asarray(decode(image), np.int64) - np.asarray(greys().convert("RGB"), np.int64)).max())


def test_packed_12_bits_are_scaled_and_12_bits_in_16_are_reported() -> None:
    deep = (GREY.astype(np.uint32) * 4095 // 255).reshape(-1, 2)
    packed = np.stack([deep[:, 0] >> 4, (deep[:, 0] & 15) << 4 | deep[:, 1] >> 8, deep[:, 1] & 255], -1)
    rows = packed.astype(np.uint8).reshape(SIZE[1], -1)
    assert off(tiff(rows, bits=12), greys()) <= 1
    assert "12-bit camera" in decode(tiff(GREY.astype(np.uint16) * 16)).info[NOTE]
    assert decode(tiff(G16)).info == {}


def test_unsupported_kinds_of_tiff_are_reported() -> None:
    rgb = np.stack([GREY] * 3, -1)
    for data in (
        tiff((rgb / 255).astype(np.float32), photometric=2, kind=3),
        tiff(GREY.astype(np.float16), kind=3),
        tiff(rgb.astype(np.uint32), photometric=2),
    ):
        with pytest.raises(UnreadableImageError, match="TIFF file that is broken or not supported"):
            decode(data)


def test_transparent_values_of_every_depth_are_white() -> None:
    key = int(GREY[3, 3])
    wanted = np.where(key == GREY, 255, GREY)
    big = png(SIZE, 16, 0, [row.astype(">u2").tobytes() for row in G16], chunk(b"tRNS", struct.pack(">H", key * 257)))
    small = png(SIZE, 8, 0, [row.tobytes() for row in GREY], chunk(b"tRNS", struct.pack(">H", key)))
    assert off(big, Image.fromarray(wanted.astype(np.uint8))) == 0
    assert off(small, Image.fromarray(wanted.astype(np.uint8))) == 0
    four = png((4, 1), 4, 0, [bytes([0x0F, 0x5A])], chunk(b"tRNS", struct.pack(">H", 5)))
    assert np.asarray(decode(four))[0, :, 0].tolist() == [0, 255, 255, 170]
    one = png((8, 1), 1, 0, [b"\xf0"], chunk(b"tRNS", struct.pack(">H", 0)))
    assert np.asarray(decode(one)).min() == 255
    pixels = np.array([[[65535, 0, 0], [0, 257 * 7, 0]]], ">u2")
    deep = png((2, 1), 16, 2, [pixels.tobytes()], chunk(b"tRNS", struct.pack(">HHH", 65535, 0, 0)))
    assert np.asarray(decode(deep)).tolist() == [[[255, 255, 255], [0, 7, 0]]]


@pytest.mark.parametrize(("primaries", "gamma", "most"), [(P3, 2.2, 2), (PROPHOTO, 1.8, 6)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_wide_gamuts_are_converted_to_srgb(
    kind: str, primaries: tuple[tuple[float, ...]], gamma: float, most: int
) -> None:
    icc = profile(b"RGB ", gamma, primaries)
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(stored_in(colours(), icc), kind, icc_profile=icc, **options)
    plain = encoded(stored_in(colours(), icc), kind, **options)
    assert off(data, colours()) <= most + 12 * (kind == "JPEG")
    assert off(plain, colours()) > 20  # without its profile it is another picture


def test_profiles_of_greys_palettes_and_transparent_images_are_applied() -> None:
    grey, wide = profile(b"GRAY", 1.0), profile(b"RGB ", 2.2, P3)
    stored = stored_in(greys().convert("RGB"), grey, "L")
    assert off(encoded(stored, "PNG", icc_profile=grey), greys()) <= 14  # linear light has few dark levels
    assert np.abs(np.asarray(stored, np.int64) - GREY).max() > 60
    alpha = stored.copy()
    alpha.putalpha(255)
    assert off(encoded(alpha, "PNG", icc_profile=grey), greys()) <= 14
    p3 = stored_in(colours(), wide)
    assert off(encoded(p3.quantize(16, dither=Image.Dither.NONE), "PNG", icc_profile=wide), colours()) <= 3
    clear = p3.copy()
    clear.putalpha(Image.fromarray(np.tile(np.array([255] * 12 + [0] * 12, np.uint8), (SIZE[1], 1))))
    wanted = np.asarray(colours()).copy()
    wanted[:, 12:] = 255
    assert off(encoded(clear, "PNG", icc_profile=wide), Image.fromarray(wanted)) <= 2


def test_a_profile_that_is_srgb_broken_or_of_another_kind_changes_no_pixel() -> None:
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = profile(b"RGB ", 2.2, P3)
    for icc in (srgb, b"broken", wide[:200], wide[:128] + b"\xff" * 400, profile(b"GRAY", 1.8), bytes(500)):
        assert off(encoded(colours(), "PNG", icc_profile=icc), colours()) == 0
    assert off(encoded(greys(), "PNG", icc_profile=wide), greys()) == 0
    cmyk = encoded(colours().convert("CMYK"), "TIFF", icc_profile=wide)
    assert off(cmyk, colours()) == 0


def test_decoded_images_decode_to_themselves() -> None:
    icc = profile(b"RGB ", 2.2, P3)
    for data in (
        encoded(stored_in(colours(), icc), "PNG", icc_profile=icc),
        with_exif("PNG", ROTATED_6),
        with_exif("JPEG", b"broken"),
        tiff(65535 - G16, photometric=0),
    ):
        once = decode(data)
        assert once.info == {}
        assert decode(once).tobytes() == once.tobytes()
        assert decode(Image.open(io.BytesIO(data))).tobytes() == once.tobytes()


def test_unsupported_formats_are_named() -> None:
    for data, name in (
        (b"8BPS" + bytes(60), "a Photoshop file"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ):
        with pytest.raises(UnreadableImageError, match=f"^not a JPEG.* but {name}"):
            decode(data)


def test_warnings_are_restored_after_the_last_thread() -> None:
    before = list(warnings.filters)
    data = with_exif("JPEG", broken_exif()["cut entry"])
    threads = [threading.Thread(target=lambda: [decode(data) for _ in range(20)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def special(folder: Path) -> dict[str, Callable[[Path], None]]:
    def bind(path: Path) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.bind(os.path.relpath(path))
        server.close()

    return {"pipe.png": os.mkfifo, "socket.png": bind, "zero.png": lambda path: path.symlink_to("/dev/zero")}


@pytest.mark.parametrize("name", ["pipe.png", "socket.png", "zero.png"])
def test_special_files_are_refused_without_blocking(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    special(tmp_path)[name](tmp_path / name)
    with pytest.raises(OSError):  # noqa: PT011 - the system words it
        decode(tmp_path / name)


def test_a_file_too_large_to_be_an_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(imaging.MAX_BYTES + 1)  # sparse
    with pytest.raises(UnreadableImageError, match="above the limit for images"):
        read_file(path)


@pytest.mark.skipif(sys.platform == "win32", reason="/proc")
def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(OSError):  # noqa: PT011
            read_file(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_importing_reads_no_profile() -> None:
    code = "import sys, vl2v_runtime.imaging; sys.exit('PIL.ImageCms' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
