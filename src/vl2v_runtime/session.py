"""Open an ONNX file with onnxruntime."""

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
FOLDING = "ConstantFolding"  # computes constant nodes at opening; an exported file has none


def open_session(path: Path, threads: int | None, spinning: bool = True) -> InferenceSession:
    """Open an ONNX file on the CPU.

    Args:
        path: path of the file, which may come from an untrusted source; see `vl2v_runtime.onnx_scan.objection`.
        threads: number of CPU threads; None leaves the choice to onnxruntime, which uses all cores.
        spinning: whether threads spin while they wait for each other; disable it next to other work.

    Raises:
        ModelError: if the file is missing, is not an ONNX model, or must not be run, or onnxruntime is not installed.
    """
    if not path.is_file():
        problem, found = ("is not a file", "a device or a pipe") if path.exists() else ("is missing", "no such file")
        step = "check the path, or export the student: vl2v export RUN"
        raise ModelError(f"{shown(path)} {problem}.", expected="an exported model", found=found, next_step=step)
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
    options.log_severity_level = 4  # errors are raised; warnings concern internal optimisations
    options.add_session_config_entry("session.use_env_allocators", "1")  # see _bound_memory
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # weights do not count
    if threads is not None:
        options.intra_op_num_threads = threads
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    kinds = ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=kinds, disabled_optimizers=[FOLDING])
    except Exception as error:  # onnxruntime raises private types
        found = " ".join(str(error).split())[:300]
        raise ModelError(f"{path} cannot be used.", expected="an ONNX model", found=found, next_step=AGAIN) from error


@cache
def _bound_memory() -> None:
    """Limit the memory that the sessions of this process allocate for the results of nodes."""
    import onnxruntime as ort

    where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with suppress(Exception):  # the application has already set a limit
        ort.create_and_register_allocator(where, ort.OrtArenaCfg({"max_mem": MEMORY, "arena_extend_strategy": 1}))


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of onnxruntime means that the result of a node does not fit into the memory."""
    return any(words in str(error) for words in ("Available memory of", "Failed to allocate memory", "bad allocation"))


def first_run() -> RunOptions:
    """Return options of a run that releases its memory at the end and can be stopped between nodes (`terminate`)."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def within(seconds: float, work: Callable[[], T], give_up: Callable[[], object] = lambda: None) -> T:
    """Call a function in a thread with a time limit, and return its result.

    onnxruntime cannot be interrupted within a node. A thread that exceeds the limit continues until the process ends.

    Args:
        give_up: called when the limit is exceeded.

    Raises:
        TimeoutError: if the limit is exceeded.
        Exception: whatever `work` raises.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # raised in the waiting thread
            done.set_exception(error)

    threading.Thread(target=run, daemon=True, name="vl2v-open").start()
    try:
        return done.result(seconds)
    except TimeoutError:
        if not done.done():
            give_up()
        raise
