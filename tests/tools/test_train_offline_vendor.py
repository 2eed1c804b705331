from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tools.train_offline_vendor import augment, listing, sources, tiles
from tools.train_offline_vendor.names import base, describe, words
from tools.train_offline_vendor.resources import contents
from tools.train_offline_vendor.wordnet import WordNet
from vl2v.teacher.offline.vocabulary import OUTLINE_ICONS, SOLID_ICONS

# A dictionary of five nouns in WordNet's format: offset, file, "n", number of words, words, pointers.
DATA = """\
00000001 03 n 01 animal 0 000 | a living thing
00000002 05 n 01 dog 0 001 @ 00000001 n 0000 | barks
00000003 08 n 01 face 0 000 | front of the head
00000004 04 n 01 run 0 000 | an act
00000005 18 n 01 farmer 0 001 @ 00000006 n 0000 | farms
00000006 03 n 01 person 0 000 | somebody
"""


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> WordNet:
    folder = tmp_path_factory.mktemp("wordnet")
    (folder / "data.noun").write_text("  1 a licence\n" + DATA)
    nouns = [(line.split()[4], line.split()[0]) for line in DATA.splitlines()]
    (folder / "index.noun").write_text("".join(f"{word} n 1 0 1 0 {offset}\n" for word, offset in nouns))
    (folder / "noun.exc").write_text("men man\n")
    (folder / "cntlist.rev").write_text("animal%1:03:00:: 1 9\nperson%1:03:00:: 1 9\n")
    return WordNet(folder)


def test_style_is_not_part_of_a_name() -> None:
    assert words("DogSide-2-outline_24px") == ["dog", "side"]
    assert base("home-2-line") == base("home-2-fill") == "home-2"


def test_an_object_is_described_with_its_hypernyms(wordnet: WordNet) -> None:
    nouns = describe("barking-dogs-outline", wordnet)
    assert nouns is not None
    assert (nouns.name, nouns.kind) == ("dog", "animal")
    assert nouns.texts == {"dog": 1.0, "animal": 0.5}


def test_the_face_of_a_dog_is_a_dog_and_an_arrow_is_nothing(wordnet: WordNet) -> None:
    nouns = describe("dog-face", wordnet)
    assert nouns is not None
    assert nouns.name == "dog"
    assert describe("arrow-left", wordnet, [("animal", 0.3)]) is None


def test_a_farmer_is_a_person(wordnet: WordNet) -> None:
    nouns = describe("farmer", wordnet)
    assert nouns is not None
    assert nouns.texts["person"] == 0.7


def test_every_icon_of_the_demo_is_excluded() -> None:
    kept_out = sources.demo_drawings()
    for table in (SOLID_ICONS, OUTLINE_ICONS):
        for fonts in table.values():
            for font, names in fonts.items():
                collection = {"mdi": "mdi", "mdi-outline": "mdi", "phosphor": "ph", "remix": "ri"}.get(font)
                if collection:
                    assert {base(f"{name}-outline") for name in names.split()} <= kept_out[collection]
    assert not set(sources.NEVER) & {*sources.EMOJI_SETS, *sources.ICON_SETS}
    assert set(sources.VALIDATION_SETS) <= {*sources.EMOJI_SETS, *sources.ICON_SETS}


def test_a_set_is_listed_without_the_demos_icons(tmp_path: Path, wordnet: WordNet) -> None:
    folder = tmp_path / "@iconify/json/json"
    folder.mkdir(parents=True)
    body = "<path d='M0 0h9v9z' fill='currentColor'/>"
    icons = {name: {"body": body} for name in ("dog-side", "dog-face", "dog-face-fill")}
    (folder / "mdi.json").write_text(json.dumps({"icons": icons, "width": 24, "height": 24}))
    (folder.parent / "collections.json").write_text(json.dumps({"mdi": {"palette": False}}))
    for name, text in (("emojilib/dist/emoji-en-US.json", "{}"), ("emoji-datasource-google/emoji.json", "[]")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    listed = list(listing.icon_items(tmp_path, "mdi", wordnet, listing.EmojiWords(tmp_path)))
    assert [item.file for item, _ in listed] == ["dog-face", "dog-face-fill"]
    assert all(item.mono and not item.validation for item, _ in listed)
    assert 'viewBox="0 0 24 24"' in listed[0][1]


def test_a_tile_is_the_drawing_centred_and_nothing_gives_none() -> None:
    drawing = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    drawing.paste((255, 0, 0, 255), (10, 10, 60, 35))
    tile = tiles.fitted(drawing)
    assert tile is not None
    solid = np.argwhere(tile[..., 3] > 128)
    assert (solid.min(axis=0) == (34, 4)).all()
    assert (solid.max(axis=0) == (93, 123)).all()
    assert tiles.fitted(Image.new("RGBA", (8, 8), (0, 0, 0, 0))) is None


def test_varied_images_are_images_and_repeat_by_seed() -> None:
    rng = np.random.default_rng(0)
    batch = torch.from_numpy(rng.random((16, 4, 128, 128), dtype=np.float32))
    batch[:, :3] *= batch[:, 3:]
    marks = augment.Marks(*torch.from_numpy(rng.random((3, 16)) < 0.5))
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(augment.varied(batch, marks, torch.rand(16, 3, 96, 96), 96))
    images, photo = results[0]
    assert images.shape == (16, 3, 96, 96)
    assert images.isfinite().all()
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert torch.equal(images, results[1][0])
    assert not (photo & ~marks.photo).any()


def test_lines_are_where_a_picture_changes() -> None:
    square = torch.zeros(1, 4, 64, 64)
    square[:, 3, 16:48, 16:48] = 1
    lines = augment.as_lines(square, torch.tensor([False]))[0, 3]
    assert float(lines[16, 20:44].min()) > 0.2
    assert float(lines[24:40, 24:40].max()) == 0
    assert float(lines[:10].max()) == 0


def test_a_resource_file_is_read(tmp_path: Path) -> None:
    """One folder with a plain and a packed file, written by hand after Qt's format."""
    names, offsets = b"", {}
    for name in ("pictures", "dog.webp", "cat.webp"):
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    packed = struct.pack(">I", 3) + zlib.compress(b"cat")
    bodies = struct.pack(">I", 3) + b"dog" + struct.pack(">I", len(packed)) + packed
    tree = struct.pack(">IHII", 0, 2, 1, 1)
    tree += struct.pack(">IHII", offsets["pictures"], 2, 2, 2)
    tree += struct.pack(">IHHHI", offsets["dog.webp"], 0, 0, 0, 0)
    tree += struct.pack(">IHHHI", offsets["cat.webp"], 1, 0, 0, 7)
    start = 20
    header = struct.pack(">4sIIII", b"qres", 1, start, start + len(tree), start + len(tree) + len(bodies))
    file = tmp_path / "a.rcc"
    file.write_bytes(header + tree + bodies + names)
    assert contents(file) == {"/pictures/dog.webp": b"dog", "/pictures/cat.webp": b"cat"}
    file.write_bytes(b"no resource file at all, but long enough")
    with pytest.raises(ValueError, match="not a Qt resource file"):
        contents(file)
