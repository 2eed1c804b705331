"""What `mkdocs build` does beyond Markdown.

Equations become MathML, the command line and the notebooks become pages, and links work on the site as they do in the
repository.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import latex2mathml.converter
import typer
from mkdocs.structure.files import File, Files

from vl2v.cli import app

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = "<!-- commands -->"
BESIDE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}  # files of the repository's root
NOTEBOOK = re.compile(r"(\]\([^)\s]*notebooks/[\w-]+)\.ipynb\)")
MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Make pages of the changelog and the like, which lie beside `docs`, and of notebooks."""
    for name, page in BESIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    for notebook in sorted((ROOT / "docs").glob("notebooks/*.ipynb")):
        page = notebook.relative_to(ROOT / "docs").with_suffix(".md").as_posix()
        files.append(File.generated(config, page, content=notebook_page(notebook)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put the command line into its page, and turn links to what is no page here to the pages made above."""
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, command_line())
    for name, target in BESIDE.items():
        markdown = re.sub(rf"\]\(((?:\.\./)*)\.\./{re.escape(name)}", rf"](\1{target}", markdown)
    return NOTEBOOK.sub(r"\1.md)", markdown)


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Turn LaTeX into MathML, which browsers draw without a script or a font from elsewhere."""
    return MATHS.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    block = found[1] == "div"
    made = latex2mathml.converter.convert(html.unescape(found[2]), display="block" if block else "inline")
    return f'<div class="equation">{made}</div>' if block else made


def notebook_page(notebook: Path) -> str:
    """A saved notebook as Markdown: texts, code and outputs in order."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return "\n\n".join(part for cell in content["cells"] for part in _cell_parts(cell)) + "\n"


def _cell_parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "text/html" in data:
            yield f'<div class="output">\n{"".join(data["text/html"])}\n</div>'
        else:
            yield f"```text\n{''.join(output.get('text') or data.get('text/plain', '')).rstrip()}\n```"


def command_line() -> str:
    """Every command of `vl2v` with its arguments and options, a section each, by name; groups of commands come last."""
    root: Any = typer.main.get_command(app)
    return "\n".join(_section(root, typer.Context(root, info_name="vl2v"), level=2))


def _section(command: Any, context: Any, level: int) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    if not inner:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield from (f"{'#' * level} {context.command_path}\n", f"{_plain(command.help or '')}\n")
        yield from ("```text", usage, "```\n", *_parameters(command, context))
        return
    if context.parent is not None:
        yield from (f"{'#' * level} {context.command_path}\n", f"{_plain(command.help or '')}\n")
        level += 1
    for name in sorted(inner, key=lambda name: (hasattr(inner[name], "commands"), name)):
        yield from _section(inner[name], typer.Context(inner[name], info_name=name, parent=context), level)


def _parameters(command: Any, context: Any) -> Iterator[str]:
    for kind, title in (("argument", "argument"), ("option", "option")):
        records = [p.get_help_record(context) for p in command.get_params(context) if p.param_type_name == kind]
        rows = [record for record in records if record and not record[0].startswith("--help")]
        if rows:
            yield f"| {title} | meaning |\n|---|---|"
            yield from (f"| `{_cell(name)}` | {_cell(_plain(text))} |" for name, text in rows)
            yield ""


def _plain(text: str) -> str:
    """Help text as it reads in a terminal: nothing of it is markup."""
    return html.escape(" ".join(text.split()), quote=False).replace("*", "\\*").replace("_", "\\_")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
