from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from once import Once
from vl2v.data.folder import DomainFolder
from vl2v.demo.drawings import MARKER, draw, emoji_of, framed, lines_only
from vl2v.errors import DataError
from vl2v.teacher.offline.vocabulary import EMOJI, OUTLINE_ICONS, SOLID_ICONS, STYLES

pytest.importorskip("resvg_py")


@pytest.fixture(scope="session")
def drawn(once: Once) -> Path:
    return once("drawings", lambda folder: draw(folder / "task", size=48)) / "task"


def test_no_drawing_is_in_two_styles() -> None:
    for name in EMOJI:
        assert not set(emoji_of("colour", name)) & set(emoji_of("line", name))
        shared = {f"{p.split('-')[0]}-{w}" for p, words in SOLID_ICONS[name].items() for w in words.split()}
        shared &= {f"{p.split('-')[0]}-{w}" for p, words in OUTLINE_ICONS[name].items() for w in words.split()}
        assert not shared, name


def test_the_dataset_is_valid_and_has_its_styles(drawn: Path) -> None:
    folder = DomainFolder(drawn)
    dataset = folder.scan()
    assert set(dataset.domains) == set(STYLES)
    assert len(dataset.folders) == 12
    assert len({d.tobytes() for d in dataset.digests}) == len(dataset), "no two files are alike"
    for style in ("line", "outline_icon", "solid_icon"):
        for path in sorted((drawn / style).rglob("*.png"))[::20]:
            pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
            assert np.abs(pixels - pixels.mean(axis=2, keepdims=True)).max() <= 1, "no colour"
    colour = np.stack([np.asarray(Image.open(p)) for p in sorted((drawn / "colour").rglob("*.png"))])
    assert np.abs(colour.astype(int) - colour.mean(axis=3, keepdims=True)).mean() > 3


@pytest.mark.slow
def test_drawing_again_changes_nothing(drawn: Path, tmp_path: Path) -> None:
    def digest(root: Path) -> dict[str, str]:
        files = sorted(root.rglob("*.png"))
        return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    before = {p: p.stat().st_mtime_ns for p in drawn.rglob("*.png")}
    assert draw(drawn, size=48) == drawn
    assert before == {p: p.stat().st_mtime_ns for p in drawn.rglob("*.png")}
    assert digest(draw(tmp_path / "again", size=48)) == digest(drawn)


def test_other_content_is_not_overwritten(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(DataError, match="cannot be drawn"):
        draw(tmp_path)
    with pytest.raises(DataError, match="another size"):
        draw(drawn, size=64)
    assert json.loads((drawn / MARKER).read_text())["size"] == 48


def test_lines_only_removes_everything_except_the_lines() -> None:
    layers = '<g id="color"><path d="M0 0"/></g><g id="line"><path d="M1 1"/></g><g id="line-supplement"/>'
    left = lines_only(f'<svg xmlns="http://www.w3.org/2000/svg">{layers}</svg>')
    assert 'id="color"' not in left
    assert 'id="line"' in left
    assert 'id="line-supplement"' in left


def test_framed_centres_the_ink() -> None:
    image = Image.new("RGB", (100, 60), "white")
    image.paste("black", (70, 10, 90, 20))
    ink = np.argwhere(np.asarray(framed(image, 50).convert("L")) < 128)
    low, high = ink.min(axis=0), ink.max(axis=0)
    assert abs((low + high + 1) / 2 - 25).max() <= 1
    assert (high - low + 1)[1] == pytest.approx(40, abs=1)
    with pytest.raises(ValueError, match="empty"):
        framed(Image.new("RGB", (9, 9), "white"), 50)
