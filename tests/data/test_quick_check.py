"""Quick checks: JPEG files are decoded at an eighth, with the same refusals and messages as full decoding.

Plain JPEG and PNG files are not opened with Pillow, and every file that passes can be decoded.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vl2v.data.pixels import PixelCache
from vl2v.data.quick_check import LARGEST, SMALL, certainly_readable
from vl2v.data.scan import FileIndex, read_all
from vl2v_runtime.imaging import UnreadableImageError, decode


def picture(width: int = 61, height: int = 45, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def refusal(data: bytes, draft: bool) -> str:
    try:
        decode(data, draft=draft)
    except UnreadableImageError as error:
        return str(error)
    return ""


FILES = {
    "baseline": encoded(picture(), "JPEG", quality=80),
    "progressive": encoded(picture(), "JPEG", progressive=True),
    "restarts": encoded(picture(), "JPEG", restart_marker_blocks=1),
    "full chroma": encoded(picture(), "JPEG", subsampling=0),
    "grey": encoded(picture(mode="L"), "JPEG"),
    "CMYK": encoded(picture(mode="CMYK"), "JPEG"),
    "tiny": encoded(picture(3, 2), "JPEG"),
    "turned": encoded(
        picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "broken profile": encoded(picture(), "JPEG", icc_profile=b"no profile"),
    "PNG": encoded(picture(), "PNG"),
    "grey PNG": encoded(picture(mode="L"), "PNG"),
    "16 bits": encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"),
    "palette": encoded(picture(mode="P"), "PNG"),
    "transparent": encoded(picture(mode="RGBA"), "PNG"),
    "float": encoded(Image.fromarray(np.full((4, 4), -3, np.float32)), "TIFF"),
    "signed": encoded(picture(mode="L"), "TIFF", tiffinfo={339: 2}),
    "GIF": encoded(picture(mode="P"), "GIF"),
    "WebP": encoded(picture(), "WEBP"),
    "no image": b"%PDF-1.7" + bytes(200),
    "empty": b"",
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_files_are_refused(name: str) -> None:
    data = FILES[name]
    cuts = sorted({*range(0, len(data), max(1, len(data) // 40)), *range(max(0, len(data) - 24), len(data) + 1)})
    for cut in cuts:
        assert refusal(data[:cut], draft=True) == refusal(data[:cut], draft=False), cut


@pytest.mark.parametrize("name", ["baseline", "progressive", "PNG"])
def test_damage_within_a_file_gives_the_same_refusal(name: str) -> None:
    generator = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(FILES[name])
        for position in generator.integers(2, len(data), 3):
            data[position] = generator.integers(0, 256)
        assert refusal(bytes(data), draft=True) == refusal(bytes(data), draft=False), bytes(data)


PLAIN = ("baseline", "progressive", "restarts", "full chroma", "grey", "PNG", "grey PNG")


def damaged(data: bytes, count: int) -> Iterator[bytes]:
    """Return copies with changed, missing and repeated bytes; PNG files also with valid checksums."""
    generator = np.random.default_rng(2)
    for i in range(count):
        copy = bytearray(data)
        for position in generator.integers(2, len(data), 1 + i % 3).tolist():
            end = position + int(generator.integers(1, 20))
            if i % 4 == 0:
                copy[position:position] = copy[position:end]
            elif i % 4 == 1:
                del copy[position:end]
            elif position < len(copy):
                copy[position] = int(generator.integers(0, 256))
        yield bytes(copy)
        if data.startswith(b"\x89PNG"):
            yield checksummed(copy)
    yield from (data[:end] for end in range(0, len(data), 7))


def checksummed(data: bytearray) -> bytes:
    start = 8
    while start + 12 <= len(data) and (end := start + 8 + int.from_bytes(data[start : start + 4], "big")) < len(data):
        data[end : end + 4] = zlib.crc32(data[start + 4 : end]).to_bytes(4, "big")
        start = end + 4
    return bytes(data)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [len(content).to_bytes(4, "big") + kind + content + bytes(4) for kind, content in chunks]
    return checksummed(bytearray(b"\x89PNG\r\n\x1a\n" + b"".join(parts)))


def test_plain_files_are_checked_without_pillow_and_others_are_not() -> None:
    assert {name: certainly_readable(data) for name, data in FILES.items()} == {name: name in PLAIN for name in FILES}


@pytest.mark.parametrize("name", PLAIN)
def test_files_that_pass_the_quick_check_can_be_decoded(name: str) -> None:
    accepted = [data for data in damaged(FILES[name], 300) if certainly_readable(data)]
    assert [data for data in accepted if refusal(data, draft=False)] == []


def test_the_quick_check_of_a_png_reads_all_of_it() -> None:
    header, pixels = b"\0\0\0\4\0\0\0\2\x08\0\0\0\0", b"\1abcd\4efgh"

    def accepted(content: bytes, *more: tuple[bytes, bytes], head: bytes = header, after: bytes = b"") -> bool:
        return certainly_readable(
            png((b"IHDR", head), *more, (b"IDAT", zlib.compress(content)), (b"IEND", b"")) + after
        )

    assert accepted(pixels)
    assert not accepted(pixels, after=b"x")
    assert not accepted(pixels[:-1])
    assert not accepted(pixels + b"x")
    assert not accepted(b"\5" + pixels[1:])  # the filters are 0 to 4
    assert not accepted(pixels, (b"tEXt", b"a"))
    assert not accepted(pixels, head=header[:-1] + b"\1")  # interlaced
    assert not accepted(pixels, head=bytes(8) + header[8:])
    assert not accepted(bytes(2 * LARGEST), head=(LARGEST + 1).to_bytes(4, "big") + b"\0\0\0\1" + header[8:])
    more = zlib.compress(pixels) + b"x"
    assert not certainly_readable(png((b"IHDR", header), (b"IDAT", more), (b"IEND", b"")))
    assert not certainly_readable(FILES["PNG"][:-1] + b"x")


def test_the_quick_check_of_a_jpeg_reads_its_markers() -> None:
    data = FILES["baseline"]
    assert certainly_readable(data + bytes(100))  # decoding ignores it too
    assert not certainly_readable(data + bytes(SMALL))
    for old, new in (
        (b"\xff\xdb", b"\0\xfe\0\2\xff\xdb"),  # the decoder skips bytes that are not a marker
        (b"\xff\xda", b"\0\xda\xff\xda"),
        (b"\xff\xdb", b"\xff\xe2"),
        (b"\xff\xdb\0\x43", b"\xff\xdb\0\x42"),
        (b"\xff\xdb\0\x43\0", b"\xff\xdb\0\x43\x10"),  # tables of 16 bits
        (b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),  # 12 bits
        (b"JFIF", b"JFXX"),
    ):
        assert old in data
        assert not certainly_readable(data.replace(old, new, 1)), (old, new)


@pytest.mark.filterwarnings("ignore:1 image such as b.png")
def test_a_scan_without_pixels_decodes_a_draft_and_one_with_a_cache_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(FILES["turned"])
    (tmp_path / "b.png").write_bytes(encoded(Image.fromarray(np.full((9, 9), 300, np.uint16)), "PNG"))
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "PIL.ImageFile.ImageFile.load_end", lambda self: sizes.append(self.size) if self.format == "JPEG" else None
    )
    with closing(FileIndex(tmp_path / "files.sqlite")) as index, closing(PixelCache(tmp_path / "cache", 8)) as cache:
        digests, faults = read_all(tmp_path, ["a.jpg", "b.png"], index=index)
        assert sizes == [(8, 6)]
        with_pixels, more = read_all(tmp_path, ["a.jpg", "b.png"], index=index, cache=cache)
        assert sizes == [(8, 6), (61, 45)]
        expected = np.asarray(decode(FILES["turned"]).resize((8, 8), Image.Resampling.BILINEAR))
        assert np.array_equal(cache.map()[cache.slots(digests)[0]], expected)
    assert (faults, more) == ([], [])
    assert np.array_equal(digests, with_pixels)
