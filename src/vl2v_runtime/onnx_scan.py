"""What speaks against running an ONNX file: read from its bytes, before a library opens them.

An ONNX tensor may say that its values lie in another file ("external data"), or state a shape of more values than it
has; a node may repeat a graph any number of times. vl2v writes none of these. Only the fields that can hold a tensor or
a node are followed (onnx.proto3, IR version 3 to 13); everything else is skipped unread.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

MAX_DEPTH = 64  # of graphs within attributes of nodes of graphs; an exported student has 1
Buffer = bytes | mmap.mmap

# message: {field: message}, of the fields through which a tensor can be reached
FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
DIMS, EXTERNAL_DATA, DATA_LOCATION = 1, 13, 14  # of a tensor
VALUES = (4, 5, 6, 7, 9, 10, 11)  # the fields of a tensor that hold its values
PACKED = 8  # values that a byte holds at most
OPERATOR = 4  # of a node
REPEATING = (b"Loop", b"Scan")
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
        pending = [("model", 0, len(data), 0)]
        while pending:
            message, start, end, depth = pending.pop()
            if depth > MAX_DEPTH:
                raise ValueError(f"messages nested deeper than {MAX_DEPTH}")
            if message == "sparse":
                return "a sparse tensor, which may unpack to any size"
            if message == "tensor":
                if found := _tensor(data, start, end):
                    return found
                continue
            below = FIELDS.get(message, {})
            for field, first, last in _fields(data, start, end):
                if message == "node" and field == OPERATOR and data[first:last] in REPEATING:
                    return f"a node that repeats a graph ({data[first:last].decode()})"
                if field in below:
                    pending.append((below[field], first, last, depth + 1))
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
