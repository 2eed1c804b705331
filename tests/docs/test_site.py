"""The site builds without a warning, has no external content, and is complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

for package in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
    pytest.importorskip(package)
pytestmark = [pytest.mark.system, pytest.mark.xdist_group("site")]
ROOT = Path(__file__).resolve().parents[2]
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Fetched(HTMLParser):
    """Collects the resources that a browser loads for a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(FETCHED.get(tag, ""))
        if address and dict(attrs).get("rel") not in ("canonical", "next", "prev"):
            self.found.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "COLUMNS": "100"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def pages(site: Path) -> dict[str, str]:
    return {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def test_pages_load_no_external_content(site: Path) -> None:
    for path in site.rglob("*.html"):
        foreign = [address for address in Fetched(path).found if re.match(r"(https?:)?//", address)]
        assert not foreign, f"{path}: {foreign}"
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"url\([\"']?(?:https?:)?//|@import", styles)


def test_equations_are_mathml(site: Path) -> None:
    page = pages(site)["method/index.html"]
    assert page.count("<math") > 20
    assert "arithmatex" not in page
    assert not re.search(r"\\(frac|cos|lambda|text)\b", page)


def test_the_reference_is_made_from_the_source(site: Path) -> None:
    site_pages = pages(site)
    assert "Number of labels per class and source domain" in site_pages["reference/command-line/index.html"]
    assert 'id="vl2v-benchmark-run"' in site_pages["reference/command-line/index.html"]
    assert "The most to spend, in the teacher" in site_pages["reference/python/index.html"].replace(
        "the most", "The most"
    )
    for error in ("MissingExtraError", "Interrupted"):
        assert f'id="vl2v.errors.{error}"' in site_pages["reference/python/index.html"]
    assert 'id="vl2v.Teacher.embed_images"' in site_pages["reference/teachers/index.html"]


def test_the_changelog_and_other_files_outside_docs_are_pages(site: Path) -> None:
    site_pages = pages(site)
    assert "Keep a Changelog" in site_pages["changelog/index.html"]
    assert 'href="../architecture/"' in site_pages["contributing/index.html"]
