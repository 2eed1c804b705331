"""Render the SVG files of a list as tiles, in a separate process, since some drawings crash the renderer.

    python -m tools.train_offline_vendor.render <list.jsonl> <folder>

The list has a line ``{"file": ..., "svg": ...}`` for each drawing. The name of a drawing is written to
``<folder>/started`` before it is rendered, and its tile to ``tiles.raw`` and its name to ``drawn`` afterwards. Drawings
in ``started`` are not tried again.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from PIL import Image

from tools.train_offline_vendor.tiles import SIDE, fitted


def main() -> None:
    """Render the drawings that have not been tried yet."""
    import resvg_py

    listing, folder = Path(sys.argv[1]), Path(sys.argv[2])
    tried = set((folder / "started").read_text().split("\n")) if (folder / "started").exists() else set()
    with (
        listing.open(encoding="utf-8") as lines,
        (folder / "started").open("a", encoding="utf-8") as started,
        (folder / "drawn").open("a", encoding="utf-8") as drawn,
        (folder / "tiles.raw").open("ab") as tiles,
    ):
        for line in lines:
            item = json.loads(line)
            if item["file"] in tried:
                continue
            started.write(item["file"] + "\n")
            started.flush()
            try:
                png = resvg_py.svg_to_bytes(svg_string=item["svg"], width=SIDE * 2, skip_system_fonts=True)
                tile = fitted(Image.open(io.BytesIO(bytes(png))))
            except (ValueError, OSError) as error:
                print(f"{item['file']}: {error}", file=sys.stderr)
                continue
            if tile is not None:
                tiles.write(tile.tobytes())
                tiles.flush()
                drawn.write(item["file"] + "\n")
                drawn.flush()


if __name__ == "__main__":
    main()
