"""Scan the bytes of an untrusted ONNX file for unsafe content, before a library opens it.

An ONNX tensor may refer to another file for its values ("external data"), or state a shape with more values than it
contains. A node may repeat a graph any number of times, and functions that call each other twice double at every level.
vl2v writes none of these. Only fields that can contain a tensor or a node are read (onnx.proto3, IR versions 3 to 13).
`vl2v_runtime.onnx_operators` lists the operators that a graph may use, and `vl2v_runtime.session` limits its memory and
time.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

from vl2v_runtime.onnx_operators import KNOWN

MAX_DEPTH = 64  # nesting of graphs in attributes of nodes; an exported student has 1
MAX_NODES = 100_000  # which onnxruntime opens in about 5 s; the largest students have some thousands
Buffer = bytes | mmap.mmap

# message: {field: message}, for the fields that can contain a tensor
FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
DIMS, EXTERNAL_DATA, DATA_LOCATION = 1, 13, 14  # of a tensor
VALUES = (4, 5, 6, 7, 9, 10, 11)  # fields of a tensor that contain its values
PACKED = 8  # maximum number of values per byte
OPERATOR, DOMAIN = 4, 7  # of a node
METADATA_PROPS, NAME, VALUE = 14, 1, 2  # of a model, and of each of its properties
REPEATING = ("Loop", "Scan")
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


def objection(path: Path) -> str:
    """Return why an ONNX file must not be run, in a few words; empty if it may be run.

    Raises:
        ValueError: if the file is not a protocol buffer.
        OSError: if it cannot be read.
    """
    if not path.stat().st_size:
        raise ValueError("an empty file")
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        pending, nodes = [("model", 0, len(data), 0)], 0
        while pending:
            message, start, end, depth = pending.pop()
            if depth > MAX_DEPTH:
                raise ValueError(f"messages nested deeper than {MAX_DEPTH}")
            nodes += message == "node"
            if nodes > MAX_NODES:
                return f"more than {MAX_NODES:,} nodes"
            if message in UNUSED:
                return UNUSED[message]
            fault = CHECKS[message](data, start, end) if message in CHECKS else ""
            if fault:
                return fault
            below = FIELDS.get(message, {})
            pending += [
                (below[f], first, last, depth + 1) for f, first, last in _fields(data, start, end) if f in below
            ]
    return ""


def property_of(path: Path, name: str) -> str | None:
    """Return a metadata property of an ONNX file by its name, without opening the model; None without it.

    Raises:
        ValueError: if the file is not a protocol buffer.
        OSError: if it cannot be read.
    """
    if not path.stat().st_size:
        raise ValueError("an empty file")
    found = {}
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for field, first, last in _fields(data, 0, len(data)):
            if field == METADATA_PROPS:
                parts = {part: data[start:end].decode() for part, start, end in _fields(data, first, last)}
                found[parts.get(NAME)] = parts.get(VALUE, "")
    return found.get(name)


def _node(data: Buffer, start: int, end: int) -> str:
    operator = domain = ""
    for field, first, last in _fields(data, start, end):
        if field == OPERATOR:
            operator = data[first:last].decode("utf-8", "replace")
        elif field == DOMAIN:
            domain = data[first:last].decode("utf-8", "replace")
    if operator in REPEATING:
        return f"a node that repeats a graph ({operator})"
    if operator not in KNOWN.get(domain, ()):
        full_name = f"{domain}.{operator}" if domain else operator
        return f"the operator {full_name[:80]!a}, which is not allowed in a classifier"
    return ""


def _tensor(data: Buffer, start: int, end: int) -> str:
    count, size = 1, 0
    for field, first, last in _fields(data, start, end):
        if field == EXTERNAL_DATA or (field == DATA_LOCATION and first != last):
            return "tensors in other files (external data)"
        if field == DIMS:
            count *= math.prod(_dimensions(data, first, last))
        elif field in VALUES:
            size += max(last - first, 1)  # a number that is 0 has no bytes
    if count > PACKED * size:
        return f"a tensor that states {count:,} values and has {size:,} bytes"
    return ""


UNUSED = {  # messages that no student contains, and why they are rejected
    "sparse": "a sparse tensor, which may unpack to any size",
    "function": "functions of its own, which may call each other and grow",
}
CHECKS = {"tensor": _tensor, "node": _node}


def _dimensions(data: Buffer, first: int, last: int) -> Iterator[int]:
    """Iterate over one number or several packed ones. No bytes stand for 0."""
    if first == last:
        yield 0
    while first < last:
        value, first = _varint(data, first, last)
        yield value


def _fields(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Iterate over the fields of a message: number, start and end of the content, which is empty for a number 0."""
    place = start
    while place < end:
        tag, place = _varint(data, place, end)
        wire = tag & 7
        if wire == VARINT:
            value, after = _varint(data, place, end)
            yield tag >> 3, place, after if value else place
            place = after
            continue
        if wire == BYTES:
            length, place = _varint(data, place, end)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"the wire type {wire}, which ONNX does not use")
        if length > end - place:
            raise ValueError("a field that is longer than its message")
        yield tag >> 3, place, place + length
        place += length


def _varint(data: Buffer, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ValueError("a number that ends too early")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number of more than ten bytes")
