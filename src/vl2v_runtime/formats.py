"""Table of image formats: supported formats, their decoders, and their first bytes."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import cache

from PIL import features


@dataclass(frozen=True)
class Format:
    """A supported image format.

    Attributes:
        title: name for messages.
        suffixes: file suffixes, the most common one first.
        start: pattern of the first 64 bytes of its files.
        lossy: whether its files are usually compressed with loss, so that a JPEG of high quality is an adequate copy.
        module: package that adds the format to Pillow; empty if Pillow has it.
        register: function of that package to call; empty if importing the package suffices.
        install: arguments of ``pip install`` to support the format.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    start: bytes
    lossy: bool = False
    module: str = ""
    register: str = ""
    install: str = ""

    def matches(self, start: bytes) -> bool:
        """Return whether the first bytes of a file are those of this format."""
        return re.match(self.start, start, re.DOTALL) is not None


READ = (
    Format("JPEG", "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"), rb"\xff\xd8\xff", lossy=True),
    Format("PNG", "PNG", (".png", ".apng"), rb"\x89PNG\r\n\x1a\n"),
    Format("WEBP", "WebP", (".webp",), rb"RIFF....WEBP"),
    Format("BMP", "BMP", (".bmp", ".dib"), rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    Format("TIFF", "TIFF", (".tif", ".tiff"), rb"II[*+]\0|MM\0[*+]"),
    Format("GIF", "GIF", (".gif",), rb"GIF8[79]a"),
    Format("AVIF", "AVIF", (".avif", ".avifs"), rb".{4}ftyp(avi[fs]|(mi[fa][1f]|msf1).{4}(.{4})*avi[fs])", lossy=True,
           install="--upgrade pillow"),
    Format("HEIF", "HEIC", (".heic", ".heif", ".hif"), rb".{4}ftyp(he[iv][cmsx]|mi[fa][1f]|msf1)", lossy=True,
           module="pillow_heif", register="register_heif_opener", install="pillow-heif"),
    Format("JXL", "JPEG XL", (".jxl",), rb"\xff\x0a|\0\0\0\x0cJXL ",
           module="pillow_jxl", install="pillow-jxl-plugin"),
)  # fmt: skip
"""MPO files, which are JPEG files with further images at the end, open as JPEG. AVIF precedes HEIF, because its files
may have the brands of HEIF."""

FORMATS = tuple(form.name for form in READ)
SUFFIXES = frozenset(suffix for form in READ for suffix in form.suffixes)
COMMON = tuple(form.title for form in READ)
LOSSY = frozenset(form.name for form in READ if form.lossy) | {"MPO"}
FOREIGN = frozenset(
    {".jp2", ".j2k", ".svg", ".psd", ".tga", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".exr", ".hdr", ".dcm", ".raw"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
)
"""Suffixes of unsupported image formats. The first bytes of raw photos are those of TIFF."""

_STARTS = {
    b"8BPS": "a Photoshop file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"v/1\x01": "an OpenEXR image",
    b"%PDF-": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"<!DOCTYPE html": "an HTML page",
    b"<html": "an HTML page",
    b"version https://git-lfs": "a Git LFS pointer without the file",
}


def format_of(start: bytes) -> Format | None:
    """Return the format of a file from at least its first 64 bytes; None if it is not supported."""
    return next((form for form in READ if form.matches(start[:64])), None)


def named(name: str) -> Format:
    """Return a format by its name in Pillow.

    Raises:
        KeyError: if it is not supported.
    """
    return {form.name: form for form in READ}[name]


def what_is(start: bytes) -> str | None:
    """Identify a file by its first bytes: one of `FORMATS`, another kind with its article, or None if unknown.

    Args:
        start: at least 64 bytes, or the whole file.
    """
    if form := format_of(start):
        return form.name
    for magic, name in _STARTS.items():
        if start.startswith(magic) or (start.lower().startswith(magic.lower()) and magic.startswith(b"<")):
            return name
    return None


def is_foreign_image(kind: str | None) -> bool:
    """Return whether a result of `what_is` is an unsupported image format."""
    return kind is not None and kind not in FORMATS and kind.endswith(("image", "Photoshop file"))


def alternatives(titles: tuple[str, ...] = COMMON) -> str:
    """Join names of formats for a sentence: JPEG, PNG or WebP."""
    return f"{', '.join(titles[:-1])} or {titles[-1]}" if len(titles) > 1 else "".join(titles)


def missing(form: Format) -> str:
    """Return the arguments of ``pip install`` to support a format; empty if it can be read already."""
    return "" if _registered(form) else form.install


def readable() -> tuple[Format, ...]:
    """Return the formats that can be read with the installed packages."""
    return tuple(form for form in READ if not missing(form))


@cache
def _registered(form: Format) -> bool:
    """Return whether Pillow can read a format. The first call imports its plugin."""
    if form.name == "AVIF":
        return bool(features.check("avif"))
    if not form.module:
        return True
    try:
        plugin = importlib.import_module(form.module)
        if form.register:
            getattr(plugin, form.register)()
    except (ImportError, OSError):  # not installed, or its library cannot be loaded
        return False
    return True
