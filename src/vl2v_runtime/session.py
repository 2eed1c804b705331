"""An ONNX file, opened by onnxruntime and by nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vl2v_runtime.errors import ModelError
from vl2v_runtime.metadata import AGAIN
from vl2v_runtime.names import printable, shown
from vl2v_runtime.onnx_scan import objection

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, RunOptions


def open_session(path: Path, threads: int | None, spinning: bool = True) -> InferenceSession:
    """Open an ONNX file on the CPU.

    Args:
        path: the file; it may come from a stranger, see `vl2v_runtime.onnx_scan.objection`.
        threads: how many the network computes with; None leaves it to onnxruntime, which takes every core.
        spinning: whether threads spin while they wait for each other; next to other work they had better not.

    Raises:
        ModelError: if it is missing, no ONNX model or one that is not run, or onnxruntime is not installed.
    """
    if not path.is_file():
        raise ModelError(f"{path} is missing.", expected="an exported model", found="no such file", next_step=AGAIN)
    if printable(path) != str(path):
        step = "rename the file or its folder"
        raise ModelError(
            f"{shown(path)} cannot be opened.", expected="a path in UTF-8", found="another encoding", next_step=step
        )
    try:
        import onnxruntime
    except ImportError as error:
        found, step = "it is not installed", "pip install vl2v-runtime, or vl2v[export]"
        raise ModelError("A model needs onnxruntime.", expected="the package", found=found, next_step=step) from error
    try:
        if found := objection(path):
            expected = "a file of vl2v export, with all its values in it"
            raise ModelError(f"{path} cannot be used.", expected=expected, found=found, next_step=AGAIN)
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        found = str(error)
        raise ModelError(f"{path} cannot be used.", expected="an ONNX model", found=found, next_step=AGAIN) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they come as exceptions, its warnings are about its own optimisations
    if threads is not None:
        options.intra_op_num_threads = threads
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises kinds of its own, none of them public
        found = " ".join(str(error).split())[:300]
        raise ModelError(f"{path} cannot be used.", expected="an ONNX model", found=found, next_step=AGAIN) from error


@contextmanager
def limited(seconds: float) -> Iterator[RunOptions]:
    """Options of one run of a session that is ended after so many seconds; onnxruntime looks between two nodes."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()
