"""An ONNX file, opened by onnxruntime and by nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vl2v_runtime.errors import ModelError
from vl2v_runtime.metadata import AGAIN
from vl2v_runtime.names import printable, shown
from vl2v_runtime.onnx_scan import objection

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, RunOptions

T = TypeVar("T")
MEMORY = 2**31  # bytes for the results of all nodes, in all sessions of a process
FOLDING = "ConstantFolding"  # computes nodes while a file is opened; an exported file has none that it could


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
    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come as exceptions, its warnings are about its own optimisations
    options.add_session_config_entry("session.use_env_allocators", "1")  # see _bound_memory
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # weights do not count
    if threads is not None:
        options.intra_op_num_threads = threads
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    kinds = ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=kinds, disabled_optimizers=[FOLDING])
    except Exception as error:  # onnxruntime raises kinds of its own, none of them public
        found = " ".join(str(error).split())[:300]
        raise ModelError(f"{path} cannot be used.", expected="an ONNX model", found=found, next_step=AGAIN) from error


@cache
def _bound_memory() -> None:
    """Bound what the sessions of this process may allocate for the results of nodes, whatever shapes a file states."""
    import onnxruntime as ort

    where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with suppress(Exception):  # the application that we are part of has bounded it already
        ort.create_and_register_allocator(where, ort.OrtArenaCfg({"max_mem": MEMORY, "arena_extend_strategy": 1}))


def is_out_of_memory(error: Exception) -> bool:
    """Whether onnxruntime says that a node's result does not fit into the memory."""
    return any(words in str(error) for words in ("Available memory of", "Failed to allocate memory", "bad allocation"))


def first_run() -> RunOptions:
    """Options of a run that gives its memory back at its end, and can be ended between two nodes (`terminate`)."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def within(seconds: float, work: Callable[[], T], give_up: Callable[[], object] = lambda: None) -> T:
    """What `work` returns, computed in a thread.

    onnxruntime cannot be interrupted within a node. A thread that takes longer is left to itself; it ends with the
    process.

    Args:
        seconds: the time it may take.
        work: takes no argument.
        give_up: called when the time is over.

    Raises:
        TimeoutError: if it takes longer.
        Exception: what `work` raises.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # raised again where it is waited for
            done.set_exception(error)

    threading.Thread(target=run, daemon=True, name="vl2v-open").start()
    try:
        return done.result(seconds)
    except TimeoutError:
        if not done.done():
            give_up()
        raise
