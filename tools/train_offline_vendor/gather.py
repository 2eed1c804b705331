"""Gather the corpus: fetch packages, list the drawings of things, render them, and write them as one array.

    python -m tools.train_offline_vendor.gather --work <folder>

If it is interrupted and started again, it continues. It writes to ``<folder>/corpus``: ``tiles.raw`` (RGBA,
[N, 128, 128, 4] uint8), ``items.jsonl`` (a line for each tile) and ``backgrounds.npy``.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np

from tools.train_offline_vendor import pictures, sources
from tools.train_offline_vendor.fetch import fetch
from tools.train_offline_vendor.listing import EmojiWords, Item, icon_items
from tools.train_offline_vendor.tiles import SIDE
from tools.train_offline_vendor.wordnet import WordNet

TIMEOUT = 900  # seconds for one set; the remaining drawings are left out
ATTEMPTS = 25  # maximum number of crashes of the renderer per set
TILE_BYTES = SIDE * SIDE * 4
log = logging.getLogger("gather")


def draw_set(work: Path, modules: Path, name: str, wordnet: WordNet, emoji: EmojiWords) -> None:
    """Render one icon set to ``<work>/sets/<name>``, in a child process."""
    folder = work / "sets" / name
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    listed = list(icon_items(modules, name, wordnet, emoji))
    (folder / "items.jsonl").write_text("".join(item.line() + "\n" for item, _ in listed), encoding="utf-8")
    listing = folder / "svg.jsonl"
    listing.write_text("".join(json.dumps({"file": item.file, "svg": svg}) + "\n" for item, svg in listed))
    for attempt in range(ATTEMPTS):
        command = [sys.executable, "-m", "tools.train_offline_vendor.render", str(listing), str(folder)]
        try:
            code = subprocess.run(command, timeout=TIMEOUT, check=False, stderr=subprocess.DEVNULL).returncode
        except subprocess.TimeoutExpired:
            log.warning("%s: a drawing took too long", name)
            continue
        if code == 0:
            break
        log.warning("%s: the renderer ended with %d, attempt %d", name, code, attempt + 1)
    listing.unlink()
    drawn = len((folder / "drawn").read_text().split())
    (folder / "done").touch()
    log.info("%s: %d listed, %d drawn", name, len(listed), drawn)


def drawn_items(folder: Path) -> list[Item]:
    """Return the items of a set in the order of its ``tiles.raw``."""
    lines = (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()
    items = {item.file: item for item in (Item(**json.loads(line)) for line in lines)}
    return [items[name] for name in (folder / "drawn").read_text(encoding="utf-8").split("\n") if name]


def lay_out(work: Path, modules: Path, deb: Path, wordnet: WordNet, emoji: EmojiWords) -> None:
    """Write ``<work>/corpus`` from the rendered sets and from the pictures that exist as files."""
    corpus = work / "corpus"
    corpus.mkdir(exist_ok=True)
    kinds: collections.Counter[tuple[str, bool]] = collections.Counter()
    with (corpus / "tiles.raw").open("wb") as tiles, (corpus / "items.jsonl").open("w", encoding="utf-8") as lines:
        for name in (*sources.EMOJI_SETS, *sources.ICON_SETS):
            folder = work / "sets" / name
            items, raw = drawn_items(folder), (folder / "tiles.raw").read_bytes()
            tiles.write(raw[: len(items) * TILE_BYTES])
            lines.writelines(item.line() + "\n" for item in items)
            kinds.update((name, item.validation) for item in items)
        for source in (
            pictures.stamps(deb, wordnet),
            pictures.clipart(deb, wordnet),
            pictures.renderings(modules, wordnet, emoji),
            pictures.school_pictures(deb, wordnet),
        ):
            for item, tile in source:
                tiles.write(tile.tobytes())
                lines.write(item.line() + "\n")
                kinds[item.source, item.validation] += 1
    np.save(corpus / "backgrounds.npy", pictures.backgrounds(deb, np.random.default_rng(0)))
    (corpus / "done").touch()
    log.info("tiles by source and validation: %s", dict(kinds))


def main() -> None:
    """Gather all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder with 12 GB free, outside the checkout")
    work = parser.parse_args().work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(work / "gather.log")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    if (work / "corpus" / "done").exists():
        log.info("the corpus is there already")
        return
    modules, deb = fetch(work)
    wordnet = WordNet(deb / "wordnet-base/usr/share/wordnet")
    emoji = EmojiWords(modules)
    for name in (*sources.EMOJI_SETS, *sources.ICON_SETS):
        draw_set(work, modules, name, wordnet, emoji)
    lay_out(work, modules, deb, wordnet, emoji)


if __name__ == "__main__":
    main()
