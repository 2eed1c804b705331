"""Pictures that exist as files: stamps, clip art, renderings, and photographs without names."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.train_offline_vendor import sources
from tools.train_offline_vendor.listing import CATEGORY, EmojiWords, Item, item_of
from tools.train_offline_vendor.names import describe, words
from tools.train_offline_vendor.resources import contents
from tools.train_offline_vendor.tiles import SIDE, Tile, fitted, looks_like_photo, opened, whole
from tools.train_offline_vendor.wordnet import WordNet

BACKGROUND = 192  # pixels of a background's side
CROPS = 12  # backgrounds cut from each photograph
Picture = tuple[Item, Tile]


def stamps(deb: Path, wordnet: WordNet) -> Iterator[Picture]:
    """Yield the stamps of Tux Paint: photographs and drawings with transparency, each described in a text file."""
    root = deb / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    for path in sorted(root.rglob("*.png")):
        folder = path.parent.relative_to(root).as_posix()
        if path.stem.endswith(("_mirror", "_flip")) or folder.startswith(sources.STAMPS_SKIPPED):
            continue
        extra = [(word, CATEGORY) for part in folder.split("/") for word in words(part)]
        text = path.with_suffix(".txt")
        said = text.read_text(encoding="utf-8").split("\n")[0].strip(" .!") if text.exists() else ""
        found = describe(_without_article(said), wordnet, extra) or describe(path.stem, wordnet, extra)
        image = opened(path) if found is not None else None
        if found is None or image is None:
            continue
        tile, photo = fitted(image), "cartoon" not in folder and looks_like_photo(image)
        if tile is not None:
            yield item_of("tuxpaint-stamps", path.relative_to(root).as_posix(), found, photo=photo), tile


def clipart(deb: Path, wordnet: WordNet) -> Iterator[Picture]:
    """Yield the drawings of Open Clip Art, named by file or else by folder."""
    root = deb / "openclipart-png/usr/share/openclipart/png"
    for path in sorted(root.rglob("*.png")):
        folder = path.parent.relative_to(root).as_posix()
        if folder.startswith(sources.CLIPART_SKIPPED):
            continue
        extra = [(word, CATEGORY) for part in folder.split("/") for word in words(part)]
        found = describe(path.stem, wordnet, extra, heads_first=True) or describe(path.parent.name, wordnet, extra)
        image = opened(path) if found is not None else None
        if found is None or image is None:
            continue
        tile = fitted(image)
        if tile is not None:
            marks = {"photo": looks_like_photo(image), "opaque": float((tile[..., 3] > 200).mean()) > 0.85}
            yield item_of("openclipart", path.relative_to(root).as_posix(), found, **marks), tile


def renderings(modules: Path, wordnet: WordNet, emoji: EmojiWords) -> Iterator[Picture]:
    """Yield the three-dimensional emoji of Fluent, named by code point, with the darkest skin tone or none."""
    for path in sorted((modules / "@lobehub/fluent-emoji-3d/assets").glob("*.webp")):
        code = path.stem.lower()
        if any(tone in code for tone in ("1f3fb", "1f3fd", "1f3fe", "1f3fc")):
            continue
        plain = code.replace("-1f3ff", "")
        name = emoji.by_code.get(plain) or emoji.by_code.get(f"{plain}-fe0f") or emoji.by_code.get(plain[:5])
        found = describe(name, wordnet, emoji.of(name)) if name else None
        image = opened(path) if found is not None else None
        tile = fitted(image) if image is not None else None
        if found is not None and tile is not None:
            yield item_of("fluent-emoji-3d", path.name, found, photo=True), tile


def school_pictures(deb: Path, wordnet: WordNet) -> Iterator[Picture]:
    """Yield the photographs and drawings of gcompris that are named after their content, except SVG drawings."""
    (folder,) = {path.parent for path in (deb / "gcompris-qt-data").rglob("lang.rcc")}
    for activity in sources.GCOMPRIS:
        for inside, data in sorted(contents(folder / f"{activity}.rcc").items()):
            path = Path(inside)
            if path.suffix not in (".webp", ".png", ".jpg"):
                continue
            extra = [(word, CATEGORY) for word in words(path.parent.name)]
            found = describe(path.stem, wordnet, extra)
            image = opened(data) if found is not None else None
            if found is None or image is None:
                continue
            opaque = int(np.asarray(image.convert("RGBA"))[..., 3].min()) > 200
            tile, photo = whole(image) if opaque else fitted(image), looks_like_photo(image)
            if tile is not None:
                yield item_of("gcompris", f"{activity}/{path.name}", found, photo=photo, opaque=opaque), tile


def backgrounds(deb: Path, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return random crops [N, BACKGROUND, BACKGROUND, 3] of desktop photographs and of landscapes of gcompris."""
    crops = []
    files = [path for name in sources.DEBIAN[4:] for path in sorted((deb / name).rglob("*")) if path.is_file()]
    pictures = [path.read_bytes() for path in files if path.suffix in (".png", ".jpg", ".jpeg", ".webp")]
    (folder,) = {path.parent for path in (deb / "gcompris-qt-data").rglob("details.rcc")}
    for activity, ending in (("details", "background.webp"), ("explore_monuments", ".webp"), ("clickgame", ".webp")):
        named = sorted(contents(folder / f"{activity}.rcc").items())
        pictures += [data for name, data in named if name.endswith(ending)]
    seen: set[int] = set()
    for data in pictures:
        try:
            with Image.open(io.BytesIO(data)) as opened:
                opened.draft("RGB", (1024, 1024))
                image = opened.convert("RGB")
        except OSError:
            continue
        image.thumbnail((1024, 1024))
        key = hash(image.resize((8, 8)).tobytes())
        if key in seen or min(image.size) < 64:
            continue
        seen.add(key)
        for _ in range(CROPS):
            side = int(min(image.size) * rng.uniform(0.35, 1.0))
            left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
            crop = image.crop((left, top, left + side, top + side)).resize((BACKGROUND, BACKGROUND))
            crops.append(np.asarray(crop, dtype=np.uint8))
    return np.stack(crops)


def _without_article(text: str) -> str:
    """Return a text without its article and without the part from a bracket on."""
    text = text.split("(")[0].strip()
    first, _, rest = text.partition(" ")
    return rest if first.lower() in ("a", "an", "the", "two", "some") and rest else text


assert SIDE < BACKGROUND  # a background can be cropped to a tile
