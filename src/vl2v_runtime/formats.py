"""Which image formats are read, which are known and not read, and what a file's first bytes say it is."""

from __future__ import annotations

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # a camera's MPO, a JPEG with a preview appended, opens as JPEG
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff"}
)
COMMON = ("JPEG", "PNG", "WebP", "BMP", "TIFF")
FOREIGN = frozenset(
    {".gif", ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".tga", ".ico", ".ppm", ".pgm"}
    | {".pbm", ".pnm", ".exr", ".hdr", ".dcm", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
)
"""Suffixes of images that are not read; a raw photo has the first bytes of a TIFF."""

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF87a": "a GIF",
    b"GIF89a": "a GIF",
    b"8BPS": "a Photoshop file",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"v/1\x01": "an OpenEXR image",
    b"%PDF-": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"<!DOCTYPE html": "an HTML page",
    b"<html": "an HTML page",
    b"version https://git-lfs": "a Git LFS pointer without the file",
}
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF"}
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)


def what_is(start: bytes) -> str | None:
    """What a file's first bytes say it is: one of `FORMATS`, another kind with its article, or None if unknown.

    Args:
        start: at least 32 bytes, or the whole file.
    """
    for magic, name in _STARTS.items():
        if start.startswith(magic) or (start.lower().startswith(magic.lower()) and magic.startswith(b"<")):
            return name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if start[4:8] == b"ftyp" and start[8:12] in _BRANDS:
        return f"a {_BRANDS[start[8:12]]} photo"
    return None


def is_foreign_image(kind: str | None) -> bool:
    """True if `what_is` found an image of a format that is not read."""
    return kind is not None and kind not in FORMATS and kind.endswith(("image", "photo", "GIF", "Photoshop file"))
