"""The page in a real Chromium: drop images, add and remove classes, by keyboard, in both themes, at phone width."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CONTRAST, FAULTS, OUTSIDE, Visit, chromium  # noqa: F401
from playwright.sync_api import Browser, expect
from serving import LATER, Server, bench, drawing, noise, opened, run, serving  # noqa: F401 - fixtures
from tiny_dataset import CLASSES, Bench

from vl2v.web.limits import Limits

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("page")]
Open = Callable[..., Visit]
LIMITS = Limits(image_bytes=200_000, body_bytes=400_000)
RINGED = "() => getComputedStyle(document.activeElement).outlineStyle === 'solid'"
NAMES = [name.replace("_", " ") for name in sorted(CLASSES)]


@pytest.fixture(scope="module")
def server(run: Path, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    copy = Path(shutil.copytree(run, tmp_path_factory.mktemp("page") / "stripes"))
    with serving(opened(copy, bench, limits=LIMITS)) as running:
        yield running


@pytest.fixture
def visit(server: Server, chromium: Browser) -> Iterator[Open]:
    visits: list[Visit] = []

    def begin(**options: Any) -> Visit:
        visits.append(Visit(chromium, server.url, **options))
        return visits[-1]

    yield begin
    for one in visits:
        one.close()


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "notes.txt"
    path.write_text("no image at all")
    return path


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "huge.png"
    path.write_bytes(noise(300))
    return path


def unsure(server: Server, bench: Bench) -> tuple[Path, str]:
    """A drawing that is not accepted at the lowest coverage, and this coverage as listed on the page."""
    model = server.service.engine.model
    trust = model.trust
    assert trust is not None
    paths = [drawing(bench, kind, i, domain) for domain in ("ink", "rose") for kind in CLASSES for i in range(10)]
    least = trust.coverages[-1]
    accepted = trust.accepts(model.logits(paths), coverage=least)
    return paths[int(accepted.argmin())], f"{least:g}"


def test_dropped_files_are_classified(server: Server, visit: Open, bench: Bench, wrong: Path, huge: Path) -> None:
    one = visit()
    page, path = one.page, drawing(bench, "bar", 2)
    expect(page.get_by_role("heading", name="stripes", level=1)).to_be_visible()
    expect(page.locator("#empty")).to_be_visible()
    right = server.service.engine.model.predict(path)[0].label
    one.drop(path)
    card = page.get_by_role("article", name="2.png")
    expect(card.locator(".prediction strong")).to_have_text(right)
    one.says(f"2.png: {right}")
    expect(card.locator(".ranks li")).to_have_count(3)
    expect(card.locator(".ranks .percent").first).to_contain_text("%")
    expect(card.get_by_role("heading", name="Similar training images")).to_be_visible()
    expect(card.locator("figure")).to_have_count(6)
    for picture in card.locator("figure img").all():
        assert picture.evaluate("(img) => img.decode().then(() => img.naturalWidth)") > 0
    assert server.service.gallery is not None
    near = server.service.gallery.nearest(server.service.engine.model.embed(path), 1)[0][0]
    expect(card.locator("figcaption").first).to_contain_text(f"{near.label}{near.domain}")
    assert card.locator(".bar i").first.evaluate("(bar) => parseFloat(bar.style.width)") > 30

    one.drop(wrong, huge, drawing(bench, "blank", 1))
    one.settled()
    expect(page.get_by_role("article", name="notes.txt")).to_contain_text("Expected a JPEG")
    expect(page.get_by_role("article", name="huge.png")).to_contain_text("The limit is 0.2 MB per image")
    expect(page.get_by_role("article", name="1.png").locator(".prediction strong")).to_be_visible()
    one.says("1 image classified, 1 could not be read.")
    assert page.evaluate(FAULTS) == []
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#empty")).to_be_visible()


def test_a_class_is_added_at_a_price_and_removed(server: Server, visit: Open, bench: Bench) -> None:
    one = visit()
    page = one.page
    one.drop(drawing(bench))
    one.settled()
    page.get_by_label("Add a class").fill("bar")
    page.get_by_role("button", name="Show price").click()
    expect(page.locator("#add-error")).to_contain_text("exists already")
    page.get_by_label("Add a class").fill(LATER)
    expect(page.locator("#add-error")).to_be_hidden()
    page.get_by_role("button", name="Show price").click()
    expect(page.locator("#offer")).to_contain_text(
        "“a photo of a dotted paper” to the teacher file:teacher.npz, for 0.0001 USD"
    )
    expect(page.get_by_role("button", name="Buy and add")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#offer")).to_be_hidden()
    expect(page.locator(".chip")).to_have_count(3)
    page.get_by_role("button", name="Show price").click()
    page.get_by_role("button", name="Buy and add").click()
    expect(page.locator(".chip")).to_have_text([*(f"{name}×" for name in NAMES), "dotted paper×"])
    one.settled()
    expect(page.locator(".ranks li")).to_have_count(4)  # images are classified again
    assert server.service.engine.model.classes == [*NAMES, "dotted paper"]

    page.get_by_role("button", name="Remove class dotted paper").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Remove class dotted paper")).to_be_focused()
    page.get_by_role("button", name="Remove class dotted paper").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator(".chip")).to_have_count(3)
    expect(page.locator(".ranks li")).to_have_count(3)
    assert server.service.engine.model.classes == NAMES


def test_the_page_can_be_used_by_keyboard(visit: Open, bench: Bench) -> None:
    one = visit()
    page = one.page
    page.on("filechooser", lambda _: None)  # now, because on the key press Chromium may open its own dialog first

    def tab_to(what: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("(what) => document.activeElement.matches(what)", what):
                assert page.evaluate(RINGED), f"the focus on {what} is not visible"
                return
        raise AssertionError(f"{what} is not reached by Tab")

    tab_to(".skip")
    tab_to("#choose")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([drawing(bench, "bar", 4), drawing(bench, "blank", 4)])
    one.says("2 images classified.")
    expect(page.get_by_role("article")).to_have_count(2)
    tab_to("#clear")
    tab_to("[aria-label='Remove class bar']")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Remove class bar")).to_be_focused()
    tab_to("#new")
    page.keyboard.type("blank")
    page.keyboard.press("Enter")
    expect(page.locator("#add-error")).to_contain_text("exists already")
    tab_to("#coverage")
    page.keyboard.press("Home")
    expect(page.locator("#coverage")).to_have_value("")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_state_has_contrast_and_fits(
    server: Server, visit: Open, bench: Bench, wrong: Path, theme: str, width: int
) -> None:
    one = visit(theme=theme, width=width, reduced_motion="reduce")
    page = one.page
    doubtful, coverage = unsure(server, bench)
    page.locator("#coverage").select_option(coverage)
    one.drop(doubtful, wrong)
    one.settled()
    expect(page.locator(".prediction strong").first).to_have_text("Unsure")
    page.locator(".x").first.click()
    page.get_by_label("Add a class").fill(LATER)
    page.get_by_role("button", name="Show price").click()
    expect(page.locator("#offer")).to_be_visible()
    page.evaluate(
        "() => { for (const id of ['offline', 'drift', 'add-error', 'no-gallery']) {"
        " document.getElementById(id).hidden = false; document.getElementById(id).textContent = 'Some words'; } }"
    )
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 30
    assert [entry for entry in ratios if entry[0] < 4.5] == []
    assert page.evaluate(OUTSIDE) == [0, []]
    assert page.evaluate(FAULTS) == []
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor") != "rgb(246, 246, 243)"
    assert dark == (theme == "dark")
    page.goto(f"{server.url}/docs")
    assert [entry for entry in page.evaluate(CONTRAST) if entry[0] < 4.5] == []
    assert page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def test_the_page_continues_when_the_server_is_back(server: Server, visit: Open, bench: Bench) -> None:
    one = visit()
    page = one.page
    one.away = True
    server.stop()
    try:
        one.drop(drawing(bench, "blank", 5))
        expect(page.get_by_role("alert").filter(has_text="The server does not respond")).to_be_visible()
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
    finally:
        server.start()
    expect(page.locator("#offline")).to_be_hidden()
    expect(page.get_by_role("article", name="5.png").locator(".prediction strong")).to_be_visible()


def test_a_folder_is_refused_and_a_pasted_image_is_accepted(visit: Open, bench: Bench) -> None:
    one = visit()
    page = one.page
    one.drop(bench.data / "ink")
    expect(page.get_by_role("article", name="ink")).to_contain_text("This is a folder")
    page.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], 'image.png', { type: 'image/png' }));
          document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));
        }""",
        list(drawing(bench).read_bytes()),
    )
    expect(page.get_by_role("article", name="image.png").locator(".prediction strong")).to_be_visible()
