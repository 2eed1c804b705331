"""Run the notebooks of the documentation, and save them with small outputs.

    python -m tools.notebooks docs/notebooks/first-student.ipynb

runs a notebook in an empty folder and saves it with its outputs. Reports in frames are left out, since they are large.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

FRAME = re.compile(r"<iframe .*?</iframe>", re.DOTALL)
NO_FRAME = "<p><em>The report appears here when you run the notebook.</em></p>"
LIMIT = 600  # seconds of one cell


def executed(notebook: Path, folder: Path) -> Any:
    """A notebook with the outputs of its cells, which run in `folder`.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    client = NotebookClient(content, timeout=LIMIT, record_timing=False, resources={"metadata": {"path": str(folder)}})
    return client.execute()


def save(content: Any, notebook: Path) -> None:
    """Write an executed notebook without what differs between machines or is large."""
    import nbformat

    content.metadata.language_info = {"name": "python"}
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", ()):
            html = output.get("data", {}).get("text/html")
            if html:
                output.data = {"text/html": small(html), "text/plain": ""}
    nbformat.write(content, notebook)


def small(html: str) -> str:
    """An output without pages in frames."""
    return FRAME.sub(NO_FRAME, html)


def main() -> None:
    """Run the notebooks that are named and save them."""
    parser = argparse.ArgumentParser(description="Run notebooks and save them with their outputs.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    for notebook in parser.parse_args().notebooks:
        with tempfile.TemporaryDirectory() as folder:
            save(executed(notebook, Path(folder)), notebook)


if __name__ == "__main__":
    main()
