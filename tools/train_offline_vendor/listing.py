"""List the drawings of every source with the texts that describe them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.train_offline_vendor import sources
from tools.train_offline_vendor.names import Description, base, describe, words
from tools.train_offline_vendor.wordnet import WordNet

VARIANTS = 2  # maximum number of drawings of a set that differ only in style or in skin tone
TONES = re.compile(r"-(medium-dark|medium-light|dark|light|medium)-skin-tone")
SOLID = re.compile(r"(fill|filled|solid|bold|duotone|twotone|two-tone)$")
CATEGORY, KEYWORD = 0.3, 0.2  # weights of the categories and keywords of a set


@dataclass(frozen=True)
class Item:
    """One drawing.

    Attributes:
        source: its set or package.
        file: an identifier within the source.
        name, kind, texts: see `names.Description`.
        mono: whether it has one colour, which may be changed.
        photo: whether it resembles a photograph.
        opaque: whether it has a background.
        validation: whether it is used for validation only.
    """

    source: str
    file: str
    name: str
    kind: str
    texts: dict[str, float]
    mono: bool = False
    photo: bool = False
    opaque: bool = False
    validation: bool = False

    def line(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))


def held_back(name: str) -> bool:
    """Return whether a name is used for validation: every `sources.HELD_BACK`-th one, by its digest."""
    return hashlib.sha256(name.encode()).digest()[0] % sources.HELD_BACK == 0


def item_of(source: str, file: str, found: Description, **marks: bool) -> Item:
    """Return an item of a source that is divided into training and validation by names."""
    return Item(source, file, found.name, found.kind, found.texts, validation=held_back(found.name), **marks)


class EmojiWords:
    """Categories and keywords of emoji, from emoji-datasource and emojilib."""

    def __init__(self, modules: Path) -> None:
        self._by_name: dict[str, tuple[tuple[str, float], ...]] = {}
        self.by_code: dict[str, str] = {}
        keywords = json.loads((modules / "emojilib/dist/emoji-en-US.json").read_text(encoding="utf-8"))
        for emoji in json.loads((modules / "emoji-datasource-google/emoji.json").read_text(encoding="utf-8")):
            text = "".join(chr(int(code, 16)) for code in emoji["unified"].split("-"))
            groups = words(emoji["subcategory"]) + words(emoji["category"])
            more = keywords.get(text, [])[1:6]
            extra = [(word, CATEGORY) for word in groups] + [(word.replace("_", " "), KEYWORD) for word in more]
            names = {emoji["name"] or "", *emoji["short_names"]}
            for name in names:
                self._by_name["-".join(words(name))] = tuple(extra)
            self.by_code[emoji["unified"].lower()] = emoji["short_name"]

    def of(self, name: str) -> tuple[tuple[str, float], ...]:
        """Return further texts for an emoji by its name in a set; none if the name is unknown."""
        return self._by_name.get("-".join(words(TONES.sub("", name))), ())


def icon_items(modules: Path, set_name: str, wordnet: WordNet, emoji: EmojiWords) -> Iterator[tuple[Item, str]]:
    """Yield the drawings of things in a set with their SVG, at most `VARIANTS` of each."""
    data = json.loads((modules / f"@iconify/json/json/{set_name}.json").read_text(encoding="utf-8"))
    about = json.loads((modules / "@iconify/json/collections.json").read_text(encoding="utf-8"))
    shown = {name: icon for name, icon in data["icons"].items() if not icon.get("hidden")}
    groups: dict[str, list[str]] = {}
    for group, members in data.get("categories", {}).items():
        for member in members:
            groups.setdefault(member, []).extend(words(group))
    excluded = sources.demo_drawings().get(set_name, frozenset())
    mono = not about[set_name].get("palette", False)
    for name in _few_variants(shown):
        if base(name) in excluded:
            continue
        extra = [*emoji.of(name), *((word, CATEGORY) for word in groups.get(name, ()))]
        found = describe(TONES.sub("", name), wordnet, extra)
        if found is not None:
            validation = set_name in sources.VALIDATION_SETS
            item = Item(set_name, name, found.name, found.kind, found.texts, mono=mono, validation=validation)
            yield item, _svg(shown[name], data)


def _few_variants(names: Iterable[str]) -> Iterator[str]:
    """Yield at most two drawings per base name: the shortest name, and a solid one or else the longest."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(base(TONES.sub("", name)), []).append(name)
    for members in groups.values():
        members.sort(key=len)
        second = next((name for name in members[1:] if SOLID.search(name)), None)
        yield from dict.fromkeys([members[0], second or members[-1]])


def _svg(icon: dict[str, Any], data: dict[str, Any]) -> str:
    """Return a complete SVG file for the body of an icon."""
    left, top = icon.get("left", data.get("left", 0)), icon.get("top", data.get("top", 0))
    width, height = icon.get("width", data.get("width", 16)), icon.get("height", data.get("height", 16))
    body = icon["body"].replace("currentColor", "#000")
    space = "http://www.w3.org/2000/svg"
    return (
        f'<svg xmlns="{space}" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{body}</svg>'
    )
