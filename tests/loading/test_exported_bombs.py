"""Small exported files that would make onnxruntime allocate or compute without limit."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exported_file import changed, make_exported
from made_folder import PICTURE, PREPROCESS
from onnx import TensorProto, helper, numpy_helper

from vl2v_runtime import session
from vl2v_runtime.errors import ModelError
from vl2v_runtime.model import Model
from vl2v_runtime.network import INPUT
from vl2v_runtime.onnx_operators import KNOWN
from vl2v_runtime.onnx_scan import MAX_NODES, objection
from vl2v_runtime.session import MEMORY

ROOM = MEMORY // 2**20 + 400  # MiB by which the process may grow; single results have 3 GiB, doubled ones have more
HUGE = 3 * 2**28  # values of 4 bytes


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_exported(tmp_path_factory.mktemp("exported") / "model.onnx")


Build = Callable[[onnx.ModelProto], list[onnx.NodeProto]]


def constant(model: onnx.ModelProto, name: str, values: Any, kind: type = np.int64) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.array(values, kind), name))
    return name


def filled(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    shape = constant(model, "shape", [HUGE])
    return [helper.make_node("ConstantOfShape", [shape], ["big"])]


def expanded(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    one, shape = constant(model, "one", [1.0], np.float32), constant(model, "shape", [2**15, HUGE >> 15])
    return [helper.make_node("Expand", [one, shape], ["big"])]


def tiled(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    one, times = constant(model, "one", [1.0], np.float32), constant(model, "times", [HUGE])
    return [helper.make_node("Tile", [one, times], ["big"])]


def padded(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    pads = constant(model, "pads", [0, 0, 0, 0, 0, 0, HUGE, 0])
    return [helper.make_node("Pad", [INPUT, pads], ["big"])]


def resized(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    sizes = constant(model, "sizes", [1, 3, 2**14, HUGE >> 14])
    return [helper.make_node("Resize", [INPUT, "", "", sizes], ["big"], mode="nearest")]


def counted(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    ends = [constant(model, name, value) for name, value in (("from", 0), ("to", HUGE), ("by", 1))]
    return [helper.make_node("Range", ends, ["big"])]


def encoded(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    inputs = [constant(model, "places", [0]), constant(model, "depth", HUGE)]
    return [helper.make_node("OneHot", [*inputs, constant(model, "values", [0, 1])], ["big"])]


def multiplied(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    tall = constant(model, "tall", np.ones((2**15, 1)), np.float32)
    wide = constant(model, "wide", np.ones((1, 2**15)), np.float32)
    return [helper.make_node("MatMul", [tall, wide], ["big"])]


def broadcast(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    tall = constant(model, "tall", np.ones((2**15, 1)), np.float32)
    wide = constant(model, "wide", np.ones((1, 2**15)), np.float32)
    return [helper.make_node("Add", [tall, wide], ["big"])]


def doubled(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    names = [INPUT, *(f"twice{i}" for i in range(24)), "big"]
    return [helper.make_node("Concat", [a, a], [b], axis=3) for a, b in pairwise(names)]


def of_the_pixels(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The shape of the result is in the image."""
    constant(model, "times", [float(HUGE)], np.float32)
    constant(model, "axes", [0, 1, 2, 3])
    return [
        helper.make_node("ReduceMax", [INPUT, "axes"], ["most"], keepdims=0),
        helper.make_node("Sign", ["most"], ["sign"]),
        helper.make_node("Mul", ["sign", "times"], ["product"]),
        helper.make_node("Cast", ["product"], ["shape"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
    ]


def with_bomb(build: Build) -> Callable[[onnx.ModelProto], None]:
    """Return a change that makes the logits depend on a huge result."""

    def change(model: onnx.ModelProto) -> None:
        nodes = build(model)
        nodes.append(helper.make_node("Cast", ["big"], ["numbers"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("ReduceMin", ["numbers"], ["least"], keepdims=0))
        nodes.append(helper.make_node("Add", ["flat", "least"], ["sum"]))
        index = next(i for i, node in enumerate(model.graph.node) if "flat" in node.input)
        model.graph.node[index].input[0] = "sum"
        for node in reversed(nodes):
            model.graph.node.insert(index, node)

    return change


BOMBS: list[Build] = [
    filled, expanded, tiled, padded, resized, counted, encoded, multiplied, broadcast, doubled, of_the_pixels
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("build", BOMBS, ids=lambda build: build.__name__)
def test_a_huge_result_is_refused_in_bounded_memory(exported: Path, tmp_path: Path, build: Build) -> None:
    file = changed(exported, tmp_path / "model.onnx", with_bomb(build))
    Model(exported)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="needs too much memory") as caught:
        Model(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < ROOM * 1024
    assert "2 GiB" in caught.value.expected
    assert "smaller student" in caught.value.next_step


def strings(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("StringConcat", ["a", "a"], ["b"]))


def sequences(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("SequenceEmpty", [], ["b"]))


def foreign(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Relu", [INPUT], ["b"], domain="evil\n"))


def nested(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("ImageDecoder", ["a"], ["b"])], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))


def billion_laughs(model: onnx.ModelProto) -> None:
    """Every function calls the one before it twice: 2^40 nodes."""
    sets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    for i in range(40):
        inner, domain = ("Relu", "") if i == 0 else (f"f{i - 1}", "own")
        calls = [helper.make_node(inner, [a], [b], domain=domain) for a, b in (("x", "y"), ("y", "z"))]
        model.functions.append(helper.make_function("own", f"f{i}", ["x"], ["z"], calls, sets))
    model.opset_import.append(sets[1])
    model.graph.node.insert(0, helper.make_node("f39", [INPUT], ["b"], domain="own"))


def many(model: onnx.ModelProto) -> None:
    model.graph.node.extend(helper.make_node("Relu", [INPUT], [f"r{i}"]) for i in range(MAX_NODES))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (strings, "the operator 'StringConcat', which is not allowed in a classifier"),
        (sequences, "SequenceEmpty"),
        (foreign, r"the operator 'evil\\n.Relu'"),
        (nested, "ImageDecoder"),
        (billion_laughs, "functions of its own|the operator 'own.f39'"),
    ],
)
def test_operators_that_no_classifier_needs_are_refused_before_opening(
    exported: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Model(changed(exported, tmp_path / "model.onnx", change))


def test_functions_are_refused(exported: Path, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        billion_laughs(model)
        del model.graph.node[0]

    assert objection(changed(exported, tmp_path / "model.onnx", change)).startswith("functions of its own")


def test_too_many_nodes_are_refused(exported: Path, tmp_path: Path) -> None:
    assert objection(changed(exported, tmp_path / "model.onnx", many)) == "more than 100,000 nodes"


def test_the_operators_are_known_to_onnx() -> None:
    schemas = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert KNOWN[""] <= schemas
    assert not {"Loop", "Scan", "StringConcat", "SequenceMap"} & KNOWN[""]


def test_a_batch_that_does_not_fit_into_memory_is_divided(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = Model(exported), []
    real = model._session.run

    class Narrow:
        """A session with memory for three images."""

        def run(self, names: list[str], inputs: dict[str, Any], options: Any = None) -> Any:
            sizes.append(len(inputs[INPUT]))
            if sizes[-1] > 3:
                raise RuntimeError("Available memory of 3 is smaller than requested bytes of 4")
            return real(names, inputs, options)

    pixels = np.random.default_rng(0).normal(size=(10, 3, PREPROCESS.size, PREPROCESS.size)).astype(np.float32)
    logits, embeddings = model.run(pixels)
    monkeypatch.setattr(model, "_session", Narrow())
    parts, vectors = model.run(pixels)
    assert sizes == [10, 5, 3, 3, 3, 1]
    assert np.allclose(parts, logits, atol=1e-5)
    assert embeddings is not None
    assert vectors is not None
    assert np.allclose(vectors, embeddings, atol=1e-5)
    sizes.clear()
    model.run(pixels[:4])
    assert sizes == [3, 1]


def test_computation_without_end_is_stopped(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, interrupts = threading.Event(), []
    try:
        with pytest.raises(TimeoutError):
            session.within(0.01, stop.wait, lambda: interrupts.append(1))
        assert interrupts == [1]
        monkeypatch.setattr("vl2v_runtime.network.PATIENCE", 0.01)
        monkeypatch.setattr("vl2v_runtime.network.open_session", lambda *_: stop.wait())
        with pytest.raises(ModelError, match="too slow") as caught:
            Model(exported)
        assert caught.value.expected == "at most 0.01 s to open it"
    finally:
        stop.set()


@pytest.mark.slow
def test_a_single_node_without_end_is_refused_and_the_process_ends(exported: Path, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        def build(model: onnx.ModelProto) -> list[onnx.NodeProto]:
            sizes = constant(model, "sizes", [1, 3, 4096, 4096])
            return [
                helper.make_node("Resize", [INPUT, "", "", sizes], ["wide"], mode="nearest"),
                helper.make_node("MaxPool", ["wide"], ["big"], kernel_shape=[4095, 4095], pads=[2047] * 4),
            ]

        with_bomb(build)(model)

    file = changed(exported, tmp_path / "model.onnx", change)
    program = f"from vl2v_runtime import network, load; network.PATIENCE = 1; load({str(file)!r}, threads=1)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is too slow" in done.stderr


def test_files_of_earlier_versions_open(exported: Path) -> None:
    assert objection(exported) == ""
    assert len(Model(exported).predict([PICTURE], coverage=1)) == 1
