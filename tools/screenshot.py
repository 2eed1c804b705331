"""Take the picture of the web page in docs/how-to/serve.md.

    vl2v serve runs/first    # the student of docs/tutorial.md
    python -m tools.screenshot docs/images/serve.webp photos/line/{clock/emoji-1f551,plant/emoji-1f33b}.png

needs the extra ``serve``, Playwright, and a Chromium that is installed on this machine.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image

FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
WIDTH, HEIGHT = 1200, 900


def screenshot(url: str, images: list[Path]) -> Image.Image:
    """Return the page of a running server after it has classified images."""
    from playwright.sync_api import expect, sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(url)
        page.locator("input[type=file]").set_input_files(images)
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        page.wait_for_load_state("networkidle")
        picture = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    return picture


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    given = parser.parse_args()
    screenshot(given.url, given.images).convert("RGB").save(given.out, quality=80, method=6)
