"""Export a student to one ONNX file, and change the classes of such a file."""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from vl2v.errors import MissingExtraError, StudentError
from vl2v.student.model import Student
from vl2v.writing import atomic_write
from vl2v_runtime.metadata import AGAIN, COSINE, KEY, LINEAR, Metadata
from vl2v_runtime.network import EMBEDDING, HEAD, INPUT, LOGITS
from vl2v_runtime.onnx_scan import property_of
from vl2v_runtime.regular import read_regular

if TYPE_CHECKING:
    import onnx

MOST_BYTES = 2**31  # largest file, which is the limit of protocol buffers
CLASSIFY = "classify"  # name of the node that multiplies by the text head
OFFSETS = "offsets"  # name of the tensor that the node adds, if classes have offsets
PRODUCER = "vl2v"


def need_onnx() -> None:
    """Check that the packages for exported files are installed.

    Raises:
        MissingExtraError: for the first missing package.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("Exporting a student", "export", package)


def describe(student: Student, provenance: Mapping[str, Any]) -> Metadata:
    """Return the metadata of an exported file, with the given provenance."""
    p = student.preprocess
    return Metadata(
        classes=tuple(student.classes),
        size=p.size,
        mean=p.mean,
        std=p.std,
        logit_scale=student.logit_scale,
        classifier=LINEAR if student.head is None else COSINE,
        provenance=provenance,
        trust=student.trust.to_dict() if student.trust else None,
        fit=p.fit,
    )


class _Trunk(nn.Module):
    """The trained part of a student: up to the embedding, or to the logits of a linear head."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, pixels: Tensor) -> Tensor:
        projected = self.student(pixels).float()
        return projected if self.student.head is None else F.normalize(projected, dim=-1)


def to_onnx(student: Student, provenance: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    """Convert a student to an ONNX graph.

    The input is `pixels` [B, 3, S, S]. The outputs are `logits` [B, K] and, with a text head, `embedding` [B, D].

    Args:
        student: the student. It is not changed.
        provenance: provenance for the metadata of the file. None uses that of the student without redaction.

    Raises:
        StudentError: if torch cannot export the backbone.
        MissingExtraError: without the extra ``export``.
    """
    need_onnx()
    import onnx

    trunk = _Trunk(copy.deepcopy(student).cpu()).eval()
    size = student.preprocess.size
    with quiet(logging.getLogger("torch.onnx")), torch.no_grad():
        try:
            program = torch.onnx.export(
                trunk,
                (torch.zeros(2, 3, size, size),),  # with one image, the batch size would become a constant
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT],
                output_names=[LOGITS if student.head is None else EMBEDDING],
                verbose=False,
            )
        except Exception as error:  # the exporter runs the user's module, which may raise anything
            raise StudentError(
                f"The backbone {student.recipe.name} cannot be exported.",
                expected="a module that torch.export can trace with any number of images",
                found=" ".join(str(error).split())[:300],
                next_step="rewrite that part, or export another backbone",
            ) from error
    assert program is not None
    model = program.model_proto
    _remove_sources(model)
    if student.head is not None:
        _classify(model, student.head.cpu().numpy(), student.logit_scale)
        _set_offsets(model, student.offsets)
    model.producer_name = PRODUCER
    set_metadata(model, describe(student, student.provenance if provenance is None else provenance))
    onnx.checker.check_model(model)
    return model


def _classify(model: onnx.ModelProto, head: np.ndarray[Any, np.dtype[np.float32]], logit_scale: float) -> None:
    """Add the classification step as a node, so that the file contains the head unchanged and by name."""
    import onnx

    graph = model.graph
    graph.initializer.append(onnx.numpy_helper.from_array(head, HEAD))
    node = onnx.helper.make_node(
        "Gemm", [EMBEDDING, HEAD], [LOGITS], name=CLASSIFY, alpha=logit_scale, transA=0, transB=1
    )
    graph.node.append(node)
    graph.output.insert(0, _logits_info(graph.output[0], len(head)))


def _set_offsets(model: onnx.ModelProto, offsets: Sequence[float]) -> None:
    """Replace the offsets that are added to the logits; zeros remove them."""
    import onnx

    graph = model.graph
    node = next(node for node in graph.node if node.name == CLASSIFY)
    for old in [tensor for tensor in graph.initializer if tensor.name == OFFSETS]:
        graph.initializer.remove(old)
    del node.input[2:]
    if any(offsets):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(offsets, np.float32), OFFSETS))
        node.input.append(OFFSETS)


def _logits_info(like: onnx.ValueInfoProto, classes: int) -> onnx.ValueInfoProto:
    import onnx

    batch = like.type.tensor_type.shape.dim[0].dim_param
    info: onnx.ValueInfoProto = onnx.helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, [batch, classes])
    return info


def _remove_sources(model: onnx.ModelProto) -> None:
    """Remove the stack traces that the exporter attaches to nodes, since they contain local paths."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def quiet(logger: logging.Logger) -> Iterator[None]:
    """Show only the errors of a package's logger."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def get_metadata(model: onnx.ModelProto, where: str) -> Metadata:
    """Read the metadata of a loaded file.

    Raises:
        ModelError: if the metadata are missing or invalid.
    """
    return Metadata.from_json({p.key: p.value for p in model.metadata_props}.get(KEY), where)


def set_metadata(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Write the metadata to a loaded file. Older metadata are replaced."""
    others = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    model.metadata_props.add(key=KEY, value=metadata.to_json())


def rewrite_classes(
    path: Path, new_metadata: Metadata, head: ArrayLike, offsets: Sequence[float] | None = None
) -> None:
    """Change the classes of an exported file without a new export. The file is replaced atomically.

    Args:
        path: an exported file, in float32 or quantised.
        new_metadata: metadata of the changed student (`describe`) with K different class names. Its provenance and
            trust data are written too.
        head: [K, D] text embeddings of any norm above 0.
        offsets: [K], added to the logits; None for zeros.

    Raises:
        StudentError: if the shapes do not fit, or the file has no text head.
        ModelError: if the file was not exported by vl2v.
    """
    rows, classes = np.asarray(head, np.float32), new_metadata.classes

    def change(model: onnx.ModelProto) -> None:
        import onnx

        metadata = get_metadata(model, str(path))
        old = next((t for t in model.graph.initializer if t.name == HEAD), None)
        if old is None:
            raise StudentError(
                f"{path} has no text head.",
                expected="a student with a text head, which the default method trains",
                found="a baseline with a linear classifier",
                next_step="train it again with these classes",
            )
        outputs = model.graph.output
        at = next((i for i, output in enumerate(outputs) if output.name == LOGITS), None)
        if len(old.dims) != 2 or at is None or CLASSIFY not in [node.name for node in model.graph.node]:
            expected, found = f"a matrix '{HEAD}' and an output '{LOGITS}'", "another graph"
            raise StudentError(f"{path} cannot be changed.", expected=expected, found=found, next_step=AGAIN)
        lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
        expected_shape = (len(classes), old.dims[1])
        usable = np.isfinite(lengths).all() and (lengths > 1e-6).all()
        if rows.shape != expected_shape or len(set(classes)) != len(classes) or not classes or not usable:
            expected = f"different names, and as many finite vectors [{old.dims[1]}] of norm above 0"
            found = f"{len(classes)} names, vectors {list(rows.shape)}"
            step = "pass one embedding for every class"
            raise StudentError("Head and classes do not match.", expected=expected, found=found, next_step=step)
        old.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(rows / lengths), HEAD))
        _set_offsets(model, offsets or ())
        outputs[at].CopyFrom(_logits_info(outputs[at], len(classes)))
        for info in [info for info in model.graph.value_info if info.name in (LOGITS, HEAD)]:
            model.graph.value_info.remove(info)
        provenance, trust = new_metadata.provenance, new_metadata.trust
        set_metadata(model, replace(metadata, classes=classes, provenance=provenance, trust=trust))

    _rewrite(path, change)


def rewrite_trust(path: Path, trust: Mapping[str, Any] | None) -> None:
    """Replace the trust data of an exported file. The file is replaced atomically.

    Args:
        path: an exported file, in float32 or quantised.
        trust: content of trust.json. None removes the trust data.

    Raises:
        ModelError: if the file was not exported by vl2v.
    """
    _rewrite(path, lambda model: set_metadata(model, replace(get_metadata(model, str(path)), trust=trust)))


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a file atomically."""
    with atomic_write(path) as fresh:
        fresh.write_bytes(model.SerializeToString())


def metadata_of(path: Path) -> Metadata:
    """Read the metadata of an exported file, without the packages of the extra ``export``.

    Raises:
        StudentError: if it cannot be read.
        ModelError: if it was not exported by vl2v.
    """
    try:
        text = property_of(path, KEY)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return Metadata.from_json(text, str(path))


def _rewrite(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = _read(path)
    change(model)
    write(model, path)


def _read(path: Path) -> onnx.ModelProto:
    need_onnx()
    import onnx

    try:
        return onnx.load_model_from_string(read_regular(path, MOST_BYTES))  # opens no other file
    except Exception as error:  # protobuf raises its own types
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> StudentError:
    found = " ".join(str(error).split())[:200]
    return StudentError(f"{path} cannot be read.", expected="an ONNX model", found=found, next_step=AGAIN)
