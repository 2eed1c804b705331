"""Scan, predict, the runtime and the service accept the same odd images and decode the same pixels."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pillow_heif
import pillow_jxl
import pytest
from made_folder import Small, student_of
from numpy.typing import NDArray
from odd_images import P3, SIZE, chunk, colours, encoded, greys, png, profile, stored_in, tiff
from PIL import Image, ImageCms
from test_exported_files import exported  # noqa: F401 - a fixture

from vl2v.commands.evaluate import classify
from vl2v.data.pixels import PixelCache
from vl2v.data.scan import read_all
from vl2v.serve.service import Options, Service
from vl2v.serve.source import Source
from vl2v.student.backbones import from_module
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess
from vl2v.web.limits import Limits
from vl2v_runtime.formats import READ
from vl2v_runtime.imaging import decode
from vl2v_runtime.model import Model

pillow_heif.register_heif_opener()
Array = NDArray[np.uint8]
RGB, GREY, WHITE = colours(), greys(), Image.new("RGB", SIZE, "white")
CMYK = RGB.convert("CMYK")
DEEP = np.asarray(GREY).astype(np.uint16) * 257


@dataclass(frozen=True)
class Odd:
    """A file and its expected picture, or None if it must be refused."""

    data: bytes
    picture: Image.Image | None
    off: float = 0.0  # allowed mean difference, of 255


def exif(kind: str, **options: object) -> bytes:
    return on_its_side(RGB, kind, **options)


def on_its_side(image: Image.Image, kind: str, **options: object) -> bytes:
    block = Image.Exif()
    block[0x0112] = 6
    return encoded(image.transpose(Image.Transpose.ROTATE_90), kind, exif=block.tobytes(), **options)


def cmyk_profile() -> bytes:
    """An ICC v2 profile of a made-up printer whose inks are those of `convert("CMYK")`, as a table of 2^4 corners."""
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
    rgb = ((1 - corners[:, :3]) * (1 - corners[:, 3:]) * 255).astype(np.uint8)[None]
    to_lab = ImageCms.profileToProfile(
        Image.fromarray(rgb), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert to_lab is not None
    lab = np.asarray(to_lab)[0].copy()
    lab[:, 1:] ^= 0x80  # Pillow stores a and b as signed bytes, a profile with 128 in the middle
    ramp = bytes(range(256))
    head = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = head + ramp * 4 + lab.tobytes() + ramp * 3
    text = b"text\0\0\0\0none\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"made\0" + bytes(78)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    tags = [(b"desc", name), (b"cprt", text), (b"wtpt", white), (b"A2B0", table)]
    index, body, at = b"", b"", 132 + 12 * len(tags)
    for tag, data in tags:
        data += bytes(-len(data) % 4)
        index += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    made = struct.pack(">IIII", at + len(body), 0, 0x02100000, 0x70727472) + b"CMYKLab "
    made += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white[8:] + bytes(48)
    return made + struct.pack(">I", len(tags)) + index + body


def entries(*tags: tuple[int, int, list[int]]) -> bytes:
    """Return tags of a TIFF: (tag, type, values)."""
    body, table, at = b"", b"", 8
    for tag, form, values in sorted(tags):
        raw = b"".join(struct.pack("<H" if form == 3 else "<I", value) for value in values)
        table += struct.pack("<HHI", tag, form, len(values))
        if len(raw) <= 4:
            table += raw.ljust(4, b"\0")
        else:
            table += struct.pack("<I", at + len(body))
            body += raw
    return struct.pack("<2sHI", b"II", 42, at + len(body)) + body + struct.pack("<H", len(tags)) + table + bytes(4)


def laid_out(planar: bool, tiled: bool) -> bytes:
    """An uncompressed TIFF of the colours, in separate planes, in tiles of 16 x 16, or both."""
    values = np.asarray(RGB)
    planes = [values[..., [band]] for band in range(3)] if planar else [values]
    parts = []
    for plane in planes:
        if not tiled:
            parts.append(plane.tobytes())
            continue
        padded = np.zeros((32, 32, plane.shape[2]), np.uint8)
        padded[: SIZE[1], : SIZE[0]] = plane
        parts += [padded[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16)]
    fixed: list[tuple[int, int, list[int]]] = [
        (256, 4, [SIZE[0]]), (257, 4, [SIZE[1]]), (258, 3, [8] * 3), (259, 3, [1]), (262, 3, [2]), (277, 3, [3]),
        (284, 3, [2 if planar else 1]),
    ]  # fmt: skip
    sizes = [len(part) for part in parts]

    def built(start: int) -> bytes:
        offsets = [start + sum(sizes[:i]) for i in range(len(sizes))]
        where: list[tuple[int, int, list[int]]] = [(273, 4, offsets), (278, 4, [SIZE[1]]), (279, 4, sizes)]
        if tiled:
            where = [(322, 4, [16]), (323, 4, [16]), (324, 4, offsets), (325, 4, sizes)]
        return entries(*fixed, *where)

    return built(len(built(0))) + b"".join(parts)


def palette(alpha: bytes) -> tuple[bytes, Image.Image]:
    made = RGB.quantize(6)
    seen = Image.new("RGBA", SIZE, "white")
    opaque = made.convert("RGBA")
    opaque.putalpha(Image.fromarray(np.frombuffer(alpha, np.uint8)[np.asarray(made)]))
    return encoded(made, "PNG", transparency=alpha), Image.alpha_composite(seen, opaque).convert("RGB")


def frames() -> dict[str, object]:
    """Options of a file with a second, white picture; Pillow notes things in the images that it writes."""
    return {"save_all": True, "append_images": [WHITE.copy()]}


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded(RGB, "JPEG"))
    at = data.find(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def without_adobe(data: bytes) -> bytes:
    at = data.find(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def odd_files() -> dict[str, Odd]:
    icc, inks = profile(b"RGB ", 2.2, P3), cmyk_profile()
    wide, srgb = stored_in(RGB, icc), ImageCms.createProfile("sRGB")
    printed = ImageCms.profileToProfile(CMYK, ImageCms.ImageCmsProfile(io.BytesIO(inks)), srgb, outputMode="RGB")
    assert printed is not None
    assert np.abs(np.asarray(printed).astype(int) - np.asarray(RGB)).max() > 9, "the profile makes a difference"
    lab = ImageCms.profileToProfile(
        RGB, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    bilevel = GREY.convert("1")
    jpeg = {"quality": 98, "subsampling": 0}
    side: tuple[int, int, list[int]] = (256, 4, [60_000])
    gigantic = entries(side, (257, 4, [60_000]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1]), (273, 4, [8]))
    p_data, p_seen = palette(bytes([0, 128, 255, 255, 255, 255]))
    files = {
        "cmyk.jpg": Odd(encoded(CMYK, "JPEG", **jpeg), RGB, 2),
        "cmyk_plain.jpg": Odd(without_adobe(encoded(CMYK, "JPEG", **jpeg)), RGB, 2),
        "cmyk.tif": Odd(encoded(CMYK, "TIFF"), RGB),
        "cmyk_lzw.tif": Odd(encoded(CMYK, "TIFF", compression="tiff_lzw"), RGB),
        "cmyk_icc.jpg": Odd(encoded(CMYK, "JPEG", icc_profile=inks, **jpeg), printed, 2),
        "cmyk_icc.tif": Odd(encoded(CMYK, "TIFF", icc_profile=inks), printed),
        "cmyk_wrong_icc.tif": Odd(encoded(CMYK, "TIFF", icc_profile=icc), RGB),
        "cmyk_broken_icc.jpg": Odd(encoded(CMYK, "JPEG", icc_profile=inks[:200], **jpeg), RGB, 2),
        "p3.tif": Odd(encoded(wide, "TIFF", icc_profile=icc), RGB, 2),
        "planar.tif": Odd(laid_out(planar=True, tiled=False), RGB),
        "tiled.tif": Odd(laid_out(planar=False, tiled=True), RGB),
        "planar_tiled.tif": Odd(laid_out(planar=True, tiled=True), RGB),
        "lab.tif": Odd(encoded(lab, "TIFF"), RGB, 2),
        "ycbcr.tif": Odd(encoded(RGB, "TIFF", compression="jpeg", quality=98), RGB, 4),
        "bigtiff.tif": Odd(encoded(RGB, "TIFF", big_tiff=True), RGB),
        "palette_alpha.png": Odd(p_data, p_seen),
        "la.png": Odd(encoded(GREY.convert("LA"), "PNG"), GREY),
        "deep.png": Odd(encoded(Image.fromarray(DEEP), "PNG"), GREY),
        "deep.tif": Odd(encoded(Image.fromarray(DEEP), "TIFF"), GREY),
        "deep_rgb.tif": Odd(tiff(np.asarray(RGB).astype(np.uint16) * 257, photometric=2), RGB),
        "deep_cmyk.tif": Odd(tiff(np.asarray(CMYK).astype(np.uint16) * 257, photometric=5), RGB),
        "signed8.tif": Odd(tiff((np.asarray(GREY).astype(int) - 128).astype(np.int8), kind=2), None),
        "signed8_positive.tif": Odd(tiff((np.asarray(GREY) // 2).astype(np.int8), kind=2), None),
        "float64.tif": Odd(tiff(np.asarray(GREY) / 255.0, kind=3), None),
        "float_rgb.tif": Odd(tiff((np.asarray(RGB) / 255).astype(np.float32), photometric=2, kind=3), None),
        "five_bands.tif": Odd(tiff(np.dstack([np.asarray(RGB)] * 2)[:, :, :5], photometric=2), None),
        "bilevel.png": Odd(encoded(bilevel, "PNG"), bilevel),
        "bilevel.tif": Odd(encoded(bilevel, "TIFF", compression="group4"), bilevel),
        "bilevel.bmp": Odd(encoded(bilevel, "BMP"), bilevel),
        "tga_called.jpg": Odd(encoded(RGB, "TGA"), None),
        "animated.webp": Odd(encoded(RGB, "WEBP", lossless=True, **frames()), RGB),
        "mpo.jpg": Odd(encoded(RGB, "MPO", **jpeg, **frames()), RGB, 2),
        "apng.png": Odd(encoded(RGB, "PNG", **frames()), RGB),
        "pages.tif": Odd(encoded(RGB, "TIFF", **frames()), RGB),
        "turned.png": Odd(exif("PNG"), RGB),
        "turned.webp": Odd(exif("WEBP", lossless=True), RGB),
        "turned.tif": Odd(exif("TIFF"), RGB),
        "turned.jpg": Odd(exif("JPEG", **jpeg), RGB, 2),
        "turned_mpo.jpg": Odd(exif("MPO", **jpeg, **frames()), RGB, 2),
        "no_width.png": Odd(png((0, 5), 8, 2, [b""] * 5), None),
        "no_height.png": Odd(png((5, 0), 8, 2, []), None),
        "no_size.jpg": Odd(jpeg_of_size(0, 0), None),
        "no_size.tif": Odd(entries((256, 4, [0]), (257, 4, [0]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1])), None),
        "bomb.png": Odd(png((50_000, 50_000), 8, 0, []), None),
        "bomb.jpg": Odd(jpeg_of_size(65_000, 65_000), None),
        "bomb.tif": Odd(gigantic, None),
        "no_pixels.png": Odd(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 8, 2, 0, 0, 0)), None),
        "empty.jpg": Odd(b"", None),
        "one_byte.png": Odd(b"\x89", None),
    }
    for form in READ:
        complete, suffix = encoded(RGB, form.name), form.suffixes[0].removeprefix(".")
        files[f"cut.{suffix}"] = Odd(complete[: len(complete) // 2], None)
        files[f"header_only.{suffix}"] = Odd(complete[:32], None)
        files[f"zeroed.{suffix}"] = Odd(bytes(len(complete)), None)
    return files | further_formats(wide, icc)


def further_formats(wide: Image.Image, icc: bytes) -> dict[str, Odd]:
    """GIF, AVIF, HEIC and JPEG XL: still, animated, transparent, turned, with a profile or broken metadata, bombs."""
    heif, avif, jxl = {"quality": -1, "chroma": 444}, {"quality": 100, "subsampling": "4:4:4"}, {"lossless": True}
    moving = encoded(RGB.quantize(8), "GIF", save_all=True, append_images=[WHITE.quantize(8)])
    frame = b"\x21\xf9\x04\0\x0a\0\0\0\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    half = Image.fromarray(np.tile(np.array([255] * 12 + [0] * 12, np.uint8), (SIZE[1], 1)))
    clear = RGB.copy()
    clear.putalpha(half)
    on_white = Image.alpha_composite(Image.new("RGBA", SIZE, "white"), clear).convert("RGB")
    large = RGB.resize((240, 180), Image.Resampling.NEAREST)
    big_gif = encoded(RGB.quantize(8), "GIF")
    images = {
        "animated.gif": Odd(moving, RGB),
        "gif_called.jpg": Odd(moving, RGB),
        "millions.gif": Odd(moving[:-1] + frame * 400_000 + b";", RGB),
        "clear.gif": Odd(encoded(clear, "GIF"), on_white),
        "bomb.gif": Odd(big_gif[:6] + struct.pack("<HH", 65_535, 65_535) + big_gif[10:], None),
        "bomb.jxl": Odd(jxl_of_size(30_000, 40_000, encoded(RGB, "JXL")), None),
        "bomb_in_parts.jxl": Odd(in_boxes(jxl_of_size(30_000, 40_000, encoded(RGB, "JXL"))), None),
        "animated.jxl": Odd(
            b"\xff\x0a" + bits((1, 1), (5, 9), (3, 1), (1, 0), (1, 1), (3, 0), (1, 0), (1, 0), (1, 1)), None
        ),
        "in_parts.jxl": Odd(in_boxes(encoded(RGB, "JXL", **jxl)), RGB),
        "grey.jxl": Odd(encoded(GREY, "JXL", **jxl), GREY),
        "from_jpeg.jxl": Odd(jxl_from_jpeg(RGB), RGB, 2),
        "p3_from_jpeg.jxl": Odd(jxl_from_jpeg(wide, icc_profile=icc), RGB, 3),
        "animated.avif": Odd(encoded(RGB, "AVIF", **avif, **frames()), RGB, 2),
        "sequence.heic": Odd(encoded(RGB, "HEIF", **heif, **frames()), RGB, 2),
        "other_brand.heic": Odd(branded(encoded(RGB, "HEIF", **heif), b"mif1"), RGB, 2),
        "other_brand.avif": Odd(branded(encoded(RGB, "AVIF", **avif), b"mif1"), RGB, 2),
    }
    for kind, suffix, options in (("HEIF", "heic", heif), ("AVIF", "avif", avif), ("JXL", "jxl", jxl)):
        images[f"clear.{suffix}"] = Odd(encoded(clear, kind, **options), on_white, 2)
        if kind != "JXL":  # its encoder does not accept a profile
            images[f"p3.{suffix}"] = Odd(encoded(wide, kind, icc_profile=icc, **options), RGB, 3)
        turned = exif(kind, **options)
        images[f"turned.{suffix}"] = Odd(turned, RGB.transpose(Image.Transpose.ROTATE_90) if kind == "JXL" else RGB, 2)
        at = turned.find(b"MM\0*") if b"MM\0*" in turned else turned.find(b"II*\0")
        broken = turned[:at] + b"\xff\xff\xff\xff" + turned[at + 4 :]
        images[f"broken_exif.{suffix}"] = replace(images[f"turned.{suffix}"], data=broken)
        if kind != "JXL":
            complete = encoded(large, kind, **options)
            at = complete.find(b"ispe") + 8
            for name, side in (("bomb", 60_000), ("large", 30_000)):
                images[f"{name}.{suffix}"] = Odd(
                    complete[:at] + struct.pack(">II", side, side) + complete[at + 8 :], None
                )
    return images


def branded(data: bytes, brand: bytes) -> bytes:
    return data[:8] + brand + data[12:]


def bits(*fields: tuple[int, int]) -> bytes:
    """Pack values of given widths, the lowest bit first, as in JPEG XL."""
    value, at = 0, 0
    for width, content in fields:
        value, at = value | content << at, at + width
    return value.to_bytes(-(-at // 8) + 8, "little")


def jxl_of_size(width: int, height: int, data: bytes) -> bytes:
    """Return a bare JPEG XL image with another stated size."""
    side = ((2, 3), (30, height - 1), (3, 0), (2, 3), (30, width - 1), (1, 1))
    return b"\xff\x0a" + bits((1, 0), *side) + data[6:]


def in_boxes(data: bytes) -> bytes:
    """A bare codestream in two parts of a container."""
    parts = (struct.pack(">I", 0) + data[:40], struct.pack(">I", 1 << 31 | 1) + data[40:])
    head = b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I", 20) + b"ftypjxl \0\0\0\0jxl "
    return head + b"".join(struct.pack(">I", 8 + len(part)) + b"jxlp" + part for part in parts)


def jxl_from_jpeg(image: Image.Image, **options: object) -> bytes:
    """Return a rotated JPEG in JPEG XL without loss; its orientation is in its EXIF block."""
    data = on_its_side(image, "JPEG", quality=98, subsampling=0, **options)
    make: Any = pillow_jxl.Encoder
    encoder = make(
        mode="RGB",
        lossless=True,
        quality=100,
        decoding_speed=0,
        effort=7,
        use_container=True,
        use_original_profile=False,
        num_threads=1,
    )
    return bytes(encoder(data, SIZE[1], SIZE[0], jpeg_encode=True))


FILES = odd_files()


@dataclass(frozen=True)
class Outcome:
    """The result of a path for a file: pixels, an answer or a reason."""

    fault: str
    pixels: Array | None = None
    label: str = ""


@dataclass(frozen=True)
class Outcomes:
    scan: dict[str, Outcome]
    predict: dict[str, Outcome]
    runtime: dict[str, Outcome]
    serve: dict[str, Outcome]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Outcomes:
    root = tmp_path_factory.mktemp("odd")
    for name, odd in FILES.items():
        (root / name).write_bytes(odd.data)
    names = list(FILES)
    model = Model(exported)
    assert isinstance(model.size, int)
    student = student_of(backbone=from_module(Small(), Preprocess(model.size, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))))
    return Outcomes(_scanned(root, names, model.size), _predicted(root, names, student), *_served(root, names, model))


def _scanned(root: Path, names: list[str], size: int) -> dict[str, Outcome]:
    cache = PixelCache(root / "cache", size)
    try:
        digests, faults = read_all(root, names, cache=cache)
        reasons = {fault.where: fault.problem for fault in faults}
        good = [i for i, name in enumerate(names) if name not in reasons]
        pixels = np.array(cache.map()[cache.slots(digests[good])])
    finally:
        cache.close()
    outcomes_by_name = {name: Outcome(reason) for name, reason in reasons.items()}
    return outcomes_by_name | {names[i]: Outcome("", row) for i, row in zip(good, pixels, strict=True)}


def _predicted(root: Path, names: list[str], student: Student) -> dict[str, Outcome]:
    answers, _ = classify(student, [root / name for name in names])
    outcomes_by_name = {}
    for name, answer in zip(names, answers, strict=True):
        pixels = None if answer.fault else student.preprocess.pixels(root / name).numpy().transpose(1, 2, 0)
        outcomes_by_name[name] = Outcome(answer.fault, pixels, answer.label)
    return outcomes_by_name


def _served(root: Path, names: list[str], model: Model) -> tuple[dict[str, Outcome], dict[str, Outcome]]:
    runtime = {}
    for name, tried in zip(names, model.attempts([root / name for name in names]), strict=True):
        pixels = None if tried.fault else model.prepare(root / name)
        runtime[name] = Outcome(tried.fault, pixels, tried.answer.label if tried.answer else "")
    about = cast(Any, None)  # not called
    service, serve = Service(model, about, None, None, Limits(), Source(model.path, lambda: model)), {}
    for name in names:
        body = service.predict("application/octet-stream", (root / name).read_bytes(), Options())
        (answer,) = json.loads(body)["answers"]
        error = answer["error"]
        serve[name] = Outcome(error["message"] if error else "", None, "" if error else answer["label"])
    return runtime, serve


@pytest.mark.parametrize("name", FILES)
def test_all_paths_agree(outcomes: Outcomes, name: str) -> None:
    odd = FILES[name]
    scan, predict, runtime, serve = (
        part[name] for part in (outcomes.scan, outcomes.predict, outcomes.runtime, outcomes.serve)
    )
    refused = [bool(outcome.fault) for outcome in (scan, predict, runtime, serve)]
    assert refused == [odd.picture is None] * 4, (scan.fault, predict.fault, runtime.fault, serve.fault)
    if odd.picture is None:
        assert scan.fault == predict.fault == runtime.fault
        for reason in (scan.fault, serve.fault):
            assert 0 < len(reason) < 200
            assert reason.isprintable(), "one line"
        return
    assert scan.pixels is not None
    assert predict.pixels is not None
    assert runtime.pixels is not None
    assert np.array_equal(scan.pixels, predict.pixels)
    assert np.array_equal(scan.pixels, runtime.pixels)
    assert runtime.label == serve.label
    seen = np.asarray(decode(odd.data)).astype(int)
    wanted = np.asarray(odd.picture.convert("RGB")).astype(int)
    assert seen.shape == wanted.shape
    assert np.abs(seen - wanted).mean() <= odd.off
