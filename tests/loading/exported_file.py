"""A small exported file, and changed copies of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from made_folder import PREPROCESS, Small, student_of
from onnx import TensorProto, helper, numpy_helper

from vl2v.onnx_export.onnx import _classify, describe, set_metadata, write
from vl2v.student.backbones import from_module
from vl2v_runtime.network import EMBEDDING, INPUT


def make_exported(file: Path) -> Path:
    """Write a file like `vl2v export`, with a hand-made trunk because the exporter of torch takes seconds."""
    shape: list[int | str] = ["batch", 3, PREPROCESS.size, PREPROCESS.size]
    nodes = [
        helper.make_node("GlobalAveragePool", [INPUT], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], [EMBEDDING], axis=1, p=2),
    ]
    matrix = numpy_helper.from_array(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32), "matrix")
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["batch", 4])]
    graph = helper.make_graph(nodes, "student", inputs, outputs, [matrix])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    student = student_of(backbone=from_module(Small(), PREPROCESS))
    assert student.head is not None
    _classify(model, student.head.numpy(), student.logit_scale)
    set_metadata(model, describe(student, student.provenance))
    write(model, file)
    return file


def changed(exported: Path, file: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(exported)
    change(model)
    file.write_bytes(model.SerializeToString())
    return file
