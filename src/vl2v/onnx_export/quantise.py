"""Quantise an exported file to INT8: static quantisation by onnxruntime, calibrated on images."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vl2v.errors import StudentError
from vl2v.faults.system import disk_full
from vl2v.onnx_export.onnx import CLASSIFY, get_metadata, need_onnx, quiet, set_metadata, write
from vl2v_runtime.network import EMBEDDING, INPUT

if TYPE_CHECKING:
    import onnx

WORK = ".quantise"  # folder of temporary files
FIRST = 3  # convolutions that stay in float: few weights, but on PACS half of the squared error of the logits
BATCH = 8  # images per calibration batch; ranges are means over batches, so an unusual image has little influence
QUANTISED = ("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu")  # operators with useful 8-bit kernels


def quantise(source: Path, target: Path, batches: Iterable[NDArray[np.float32]]) -> None:
    """Quantise weights per channel and activations per tensor to 8 bits, as QuantizeLinear/DequantizeLinear pairs.

    The first convolutions, the norm of the embedding and the text head stay in float, so classes can still be changed
    in the file. The range of a tensor is the mean of the extremes over batches of `BATCH` images.

    Args:
        source: an exported file in float32.
        batches: normalised pixels [B, 3, S, S] float32 for calibration.

    Raises:
        StudentError: if onnxruntime cannot quantise the file.
    """
    need_onnx()
    import onnx

    model, count = onnx.load(source), 0

    def counted() -> Iterator[dict[str, NDArray[np.float32]]]:
        nonlocal count
        for batch in batches:
            count += len(batch)
            for start in range(0, len(batch), BATCH):
                yield {INPUT: batch[start : start + BATCH]}

    # onnxruntime advises in the root logger to preprocess the graph, which the exporter has already done
    with _emptied(target.parent / WORK) as folder, quiet(logging.root):
        before, after = folder / "float.onnx", folder / "int8.onnx"
        shutil.copyfile(source, before)  # onnxruntime writes next to its input
        try:
            first = [node.name for node in model.graph.node if node.op_type == "Conv"][:FIRST]
            _quantise(before, after, counted(), first + _head_nodes(model))
            quantised = onnx.load(after)
        except Exception as error:  # onnxruntime's tools raise many types
            if disk_full(error):
                raise
            raise StudentError(
                f"{source} cannot be quantised.",
                expected="a graph that onnxruntime can quantise",
                found=" ".join(str(error).split())[:300],
                next_step="use the file in float32",
            ) from error
    how = {"method": "static, QDQ, per channel, uint8 activations", "calibration": f"mean extremes of {BATCH} images"}
    quantised.producer_name = model.producer_name
    del quantised.metadata_props[:]
    set_metadata(quantised, replace(get_metadata(model, str(source)), quantised=how | {"images": count}))
    write(quantised, target)


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """Create a folder for the block. One that a killed process has left is removed first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _quantise(before: Path, after: Path, inputs: Iterator[dict[str, NDArray[np.float32]]], keep: list[str]) -> None:
    from onnxruntime import quantization as ort

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(inputs, None)

    ort.quantize_static(
        before,
        after,
        Reader(),
        quant_format=ort.QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTISED),
        nodes_to_exclude=keep,
        per_channel=True,
        activation_type=ort.QuantType.QUInt8,
        weight_type=ort.QuantType.QInt8,
        calibrate_method=ort.CalibrationMethod.MinMax,
        extra_options={"CalibMovingAverage": True},
    )


def _head_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the nodes that normalise the embedding and compute the logits. None of them exist without a text head."""
    producers = {output: node for node in model.graph.node for output in node.output}
    if EMBEDDING not in producers:
        return []
    divide = producers[EMBEDDING]
    names, pending = [CLASSIFY, divide.name], list(divide.input[1:])
    while pending:  # the nodes of the norm, back to the projection
        node = producers.get(pending.pop())
        if node is not None and node.name not in names:
            names.append(node.name)
            pending += [name for name in node.input if name != divide.input[0]]
    return names
