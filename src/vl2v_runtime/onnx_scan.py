"""What speaks against running an ONNX file: read from its bytes, before a library opens them.

An ONNX tensor may say that its values lie in another file ("external data"), or state a shape of more values than it
has. A node may repeat a graph any number of times, and functions that call each other twice double at every level. vl2v
writes none of these. Only the fields that can hold a tensor or a node are followed (onnx.proto3, IR version 3 to 13);
everything else is skipped unread. What a graph may compute is in `vl2v_runtime.onnx_operators`, and how much memory and
time that may take in `vl2v_runtime.session`.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

from vl2v_runtime.onnx_operators import KNOWN

MAX_DEPTH = 64  # of graphs within attributes of nodes of graphs; an exported student has 1
MAX_NODES = 100_000  # onnxruntime needs about 5 s to open as many; the largest students have some thousands
Buffer = bytes | mmap.mmap

# message: {field: message}, of the fields through which a tensor can be reached
FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
DIMS, EXTERNAL_DATA, DATA_LOCATION = 1, 13, 14  # of a tensor
VALUES = (4, 5, 6, 7, 9, 10, 11)  # the fields of a tensor that hold its values
PACKED = 8  # values that a byte holds at most
OPERATOR, DOMAIN = 4, 7  # of a node
REPEATING = ("Loop", "Scan")
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


def objection(path: Path) -> str:
    """What speaks against running an ONNX file, in a few words; empty if nothing does.

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
            found = CHECKS[message](data, start, end) if message in CHECKS else ""
            if found:
                return found
            below = FIELDS.get(message, {})
            pending += [
                (below[f], first, last, depth + 1) for f, first, last in _fields(data, start, end) if f in below
            ]
    return ""


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
        named = f"{domain}.{operator}" if domain else operator
        return f"the operator {named[:80]!a}, which no classifier needs"
    return ""


def _tensor(data: Buffer, start: int, end: int) -> str:
    count, size = 1, 0
    for field, first, last in _fields(data, start, end):
        if field == EXTERNAL_DATA or (field == DATA_LOCATION and first != last):
            return "tensors in other files (external data)"
        if field == DIMS:
            count *= math.prod(_dimensions(data, first, last))
        elif field in VALUES:
            size += max(last - first, 1)  # nothing stands for a number that is 0
    if count > PACKED * size:
        return f"a tensor that states {count:,} values and has {size:,} bytes"
    return ""


UNUSED = {  # messages that no student has, and why they are refused
    "sparse": "a sparse tensor, which may unpack to any size",
    "function": "functions of its own, which may call each other and grow",
}
CHECKS = {"tensor": _tensor, "node": _node}


def _dimensions(data: Buffer, first: int, last: int) -> Iterator[int]:
    """One number, or several packed ones; an empty place is a 0."""
    if first == last:
        yield 0
    while first < last:
        value, first = _varint(data, first, last)
        yield value


def _fields(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Every field of a message: its number, and where its content begins and ends; nowhere for a number that is 0."""
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
