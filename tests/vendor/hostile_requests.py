"""Requests that no honest client sends, and the expected answers."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from vendor_serving import picture

MODEL = "@"  # placeholder of the served model


@dataclass(frozen=True)
class Case:
    """A request body and the expected status; several codes if either of two checks may come first."""

    name: str
    body: bytes
    status: int
    code: str | None = None


def request(value: Any, **extra: Any) -> bytes:
    return json.dumps({"model": MODEL, "input": value} | extra).encode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def webp(kind: bytes, body: bytes) -> bytes:
    content = b"WEBP" + kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(content)) + content


def other_format(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(buffer, kind)
    return buffer.getvalue()


VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "float": 1.5,
    "list": [],
    "object": {},
    "nested": [[["a"]]],
    "empty": "",
    "huge": 10**30,
}


def wrong_types() -> Iterator[Case]:
    """Return every wrong value for every field."""
    for name, value in VALUES.items():
        yield Case(f"input is {name}", request(value), 422)
        yield Case(f"input of {name}", request([value]), 422)
        yield Case(f"input of a text and {name}", request(["a", value]), 422)
        yield Case(f"text is {name}", request([{"text": value}]), 422)
        yield Case(f"content is {name}", request([{"content": value}]), 422)
        yield Case(f"content of {name}", request([{"content": [value]}]), 422)
        yield Case(f"part text is {name}", request([{"content": [{"type": "text", "text": value}]}]), 422)
        yield Case(f"part type is {name}", request([{"content": [{"type": value, "text": "a"}]}]), 422)
        link = {"type": "image_url", "image_url": value}
        yield Case(f"image_url is {name}", request([{"content": [link]}]), 422)
        for position, body in (
            ("image", [{"image": value}]),
            ("url", [{"content": [{"type": "image_url", "image_url": {"url": value}}]}]),
        ):
            yield Case(f"{position} is {name}", request(body), 400 if value == "" else 422)
        yield Case(f"modality image, input of {name}", request([value], modality="image"), 400 if value == "" else 422)
        if value is not None:
            yield Case(f"modality is {name}", request("a", modality=value), 422)
            yield Case(f"encoding is {name}", request("a", encoding_format=value), 422)
            yield Case(f"dimensions is {name}", request("a", dimensions=value), 422)
        if value not in ("", None):
            yield Case(f"user is {name}", request("a", user=value), 422)
        model_status = 404 if value == "" else 422
        yield Case(f"model is {name}", json.dumps({"model": value, "input": "a"}).encode(), model_status)
        yield Case(f"body is {name}", json.dumps(value).encode(), 422)


def wrong_shapes() -> Iterator[Case]:
    two = {"type": "text", "text": "a"}
    shapes: dict[str, Any] = {
        "two keys": [{"text": "a", "image": "b"}],
        "unknown key": [{"audio": "a"}],
        "two parts": [{"content": [two, two]}],
        "part with three keys": [{"content": [{**two, "image_url": {"url": "a"}}]}],
        "part without text": [{"content": [{"type": "text", "txt": "a"}]}],
        "image part with text": [{"content": [{"type": "image_url", "text": "a"}]}],
        "url with detail": [{"content": [{"type": "image_url", "image_url": {"url": "a", "detail": "high"}}]}],
        "tokens": [1, 2, 3],
        "lists of tokens": [[1, 2], [3]],
        "too many": ["a"] * 2049,
        "very many": ["a"] * 100_000,
        "half a surrogate": "a\ud800b",
        "half a surrogate inside": [{"text": "\udfff"}],
        "prototype": [{"__proto__": "a"}],
        "class": [{"__class__": "a"}],
    }
    for name, value in shapes.items():
        yield Case(name, request(value), 422)
    for name in ("normalized", "embedding_type", "MODEL", "", "a" * 5000, "__proto__", "Authorization"):
        yield Case(f"unknown field {name[:20]}", request("a", **{name: "a"}), 422)
    for value in (31, 33, -32, 0, 32.5, "32", 2**70, 1e308, [32], True):
        yield Case(f"dimensions {value}", request("a", dimensions=value), 422)
    for value in ("audio", "Image", "IMAGE ", "image\x00", "text,image"):
        yield Case(f"modality {value!r}", request("a", modality=value), 422)
    for value in ("hex", "Base64", "int8", "float ", "base64\n"):
        yield Case(f"encoding {value!r}", request("a", encoding_format=value), 422)
    for value in ("x", "../../etc/passwd", "@\x00", "a" * 100_000, "' OR 1=1 --", "${jndi:ldap://x}", "{{7*7}}"):
        yield Case(f"model {value[:20]!r}", json.dumps({"model": value, "input": "a"}).encode(), 404)
    yield Case("text too long", request("a" * 4001), 413, "text_too_long")
    yield Case("text of combining marks too long", request("\u0301" * 4001), 413, "text_too_long")


def broken_json() -> Iterator[Case]:
    good = request("a")
    for size in (0, 1, 10, len(good) - 1):
        yield Case(f"cut at {size}", good[:size], 422)
    for depth in (500, 1000, 10_000, 100_000, 1_000_000):
        yield Case(f"deep list {depth}", b"[" * depth, 422)
        yield Case(f"deep closed list {depth}", b'{"model":"@","input":' + b"[" * depth + b"]" * depth + b"}", 422)
        yield Case(f"deep object {depth}", b'{"a":' * depth, 422)
    for name, body in {
        "nothing but spaces": b" " * 1000,
        "binary": bytes(range(256)),
        "nul": b"\x00",
        "utf-16": good.decode().encode("utf-16-le")[:-1],
        "latin-1": b'{"model":"@","input":"\xe9"}',
        "overlong utf-8": b'{"model":"@","input":"\xc0\xaf"}',
        "two documents": good + good,
        "single quotes": b"{'model':'@','input':'a'}",
        "trailing comma": b'{"model":"@","input":"a",}',
        "comment": b'{"model":"@",/**/"input":"a"}',
        "number of 5000 digits": b'{"model":"@","input":' + b"9" * 5000 + b"}",
        "number with exponent": b'{"model":"@","input":1e999999}',
        "NaN": b'{"model":"@","input":NaN}',
        "raw newline": b'{"model":"@","input":"a\nb"}',
        "bad escape": b'{"model":"@","input":"\\x41"}',
        "form": b"model=@&input=a",
        "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "gzip": zlib.compress(good),
        "multipart": b'--x\r\nContent-Disposition: form-data; name="input"\r\n\r\na\r\n--x--',
        "many keys": json.dumps({str(i): i for i in range(50_000)}).encode(),
        "yaml": b"model: '@'\ninput: a",
        "pickle": b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93.",
    }.items():
        yield Case(name, body, 422)


def bad_base64() -> Iterator[Case]:
    good = b64(picture(1))
    for name, value in {
        "one character": "A",
        "unpadded": b64(bytes(301)).rstrip("="),
        "padding only": "====",
        "padding inside": good[:8] + "==" + good[8:],
        "spaces": good[:8] + " " + good[8:],
        "newlines": good[:76] + "\n" + good[76:],
        "url-safe": "__--" + good[4:],
        "not ascii": "é" + good[1:],
        "nul": "\x00" + good[1:],
        "percent": "%41" + good[3:],
        "surrogate": "\ud800" + good[1:],
        "excess": good + "=",
        "base64 of base64": b64(good.encode()),
        "hex": picture(1).hex(),
        "a path": "/etc/passwd",
        "a relative path": "../../../../etc/passwd",
        "a Windows path": "C:\\secret.png",
        "a UNC path": "\\\\evil\\share\\a.png",
        "a device": "/dev/zero",
    }.items():
        yield Case(f"base64: {name}", request([{"image": value}]), 400)
        yield Case(f"data URI, base64: {name}", request(f"data:image/png;base64,{value}", modality="image"), 400)
    for name, value in {
        "no data": "data:",
        "no comma": "data:image/png;base64" + good,
        "not base64": "data:image/png," + good,
        "text": "data:text/html;base64," + good,
        "no type": "data:;base64," + good,
        "octets": "data:application/octet-stream;base64," + good,
        "upper case": "DATA:IMAGE/PNG;BASE64," + good,
        "a blank": " data:image/png;base64," + good,
        "twice": "data:image/png;base64,data:image/png;base64," + good,
        "svg": "data:image/svg+xml;base64," + b64(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
        "empty": "data:image/png;base64,",
    }.items():
        yield Case(f"data URI: {name}", request(value, modality="image"), 400)


URLS = [
    "http://127.0.0.1/a.png",
    "http://localhost:8080/v1/usage",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/a.png",
    "http://[::ffff:127.0.0.1]/",
    "http://0/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://017700000001/",
    "https://example.com/a.png",
    "https://user:password@example.com/a.png",
    "http://example.com@127.0.0.1/",
    "http://",
    "http://" + "a" * 10_000,
    "http://[",
    "https://\u2488\u2488.com/",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://127.0.0.1/a",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "jar:http://127.0.0.1!/a",
    "dict://127.0.0.1:11211/",
    "ldap://127.0.0.1/",
    "unix:/run/docker.sock",
    "javascript:alert(1)",
    "s3://bucket/key",
    "//127.0.0.1/a.png",
    "HTTP://127.0.0.1/a.png",
    "http:/127.0.0.1/a.png",
    "http:127.0.0.1",
    "blob:http://127.0.0.1/1",
]


def links() -> Iterator[Case]:
    for url in URLS:
        yield Case(f"image {url[:50]}", request([{"image": url}]), 400)
        yield Case(f"modality image {url[:50]}", request(url, modality="image"), 400)
        part = {"type": "image_url", "image_url": {"url": url}}
        yield Case(f"content {url[:50]}", request([{"content": [part]}]), 400)


def bad_images() -> Iterator[Case]:
    flat = zlib.compress(bytes(3 * 4000 * 4000 + 4000), 9)
    jpeg, complete_png, web = picture(1, "JPEG"), picture(1), picture(1, "WEBP")
    scans = jpeg[:-2] + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00" * 5000 + b"\xff\xd9"
    canvas = b"\x10\0\0\0" + (16383).to_bytes(3, "little") * 2
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000), 9))
    idat = chunk(b"IDAT", zlib.compress(bytes(4 * 13)))
    cases: dict[str, tuple[bytes, int]] = {
        "bomb: 50,000 x 50,000 PNG": (png(50_000, 50_000, chunk(b"IDAT", flat)), 413),
        "bomb: 2^31 x 2^31 PNG": (png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", flat)), 413),
        "bomb: one row of 2^31": (png(2**31 - 1, 1, chunk(b"IDAT", flat)), 413),
        "bomb: 20 MP and one row": (png(5000, 4001, chunk(b"IDAT", flat)), 413),
        "bomb: profile": (png(0, 4, profile, idat), 400),
        "bomb: PNG without data": (png(4000, 4000), 400),
        "bomb: WebP canvas": (webp(b"VP8X", canvas), 413),
        "bomb: WebP lossless": (webp(b"VP8L", b"\x2f" + (0x3FFF | 0x3FFF << 14).to_bytes(4, "little") + bytes(9)), 413),
        "bomb: WebP lossy": (webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(9)), 413),
        "bomb: small WebP canvas, no frame": (webp(b"VP8X", b"\x10" + bytes(9)), 400),
        "bomb: JPEG of 5000 scans": (scans, 400),
        "bomb: JPEG of 65,500 x 65,500": (jpeg.replace(b"\x00\x24\x00\x28", b"\xff\xdc\xff\xdc", 1), 413),
        "PNG of no width": (png(0, 4, idat), 400),
        "PNG of no height": (png(4, 0, idat), 400),
        "PNG with a wrong checksum": (complete_png[:40] + bytes([complete_png[40] ^ 1]) + complete_png[41:], 400),
        "PNG of unknown colour": (png(4, 4, idat, colour=7), 400),
        "PNG of depth 3": (png(4, 4, idat, depth=3), 400),
        "too many bytes": (complete_png + bytes(10_000_000), 413),
        "a file of zeros": (bytes(1000), 400),
        "a Python file": (b"import os; os.system('id')", 400),
        "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', 400),
        "an EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file", 400),
        "a PDF": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj", 400),
        "an MVG": (b"push graphic-context\nfill 'url(https://127.0.0.1/\"|id\")'", 400),
        "a ZIP": (b"PK\x03\x04" + bytes(100), 400),
        "RIFF, but sound": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(30), 400),
    }
    for kind in ("GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "JPEG2000", "SGI", "DDS"):
        cases[f"format {kind}"] = (other_format(kind), 400)
    for name, data in (("JPEG", jpeg), ("PNG", complete_png), ("WebP", web)):
        for size in (1, 2, 4, 8, 12, 16, 20, 24, 30, 33, 40, len(data) // 2, len(data) * 3 // 4):
            cases[f"{name} cut at {size}"] = (data[:size], 400)
    for name, (data, status) in cases.items():
        yield Case(name, request([{"image": b64(data)}]), status)


def text_bomb() -> bytes:
    """A good PNG with 100 MB of text in a compressed chunk, which no pixel needs."""
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9))
    return png(4, 4, text, chunk(b"IDAT", zlib.compress(bytes(4 * 13))))


def mutated_images(count: int) -> list[bytes]:
    """Images with some bytes changed at random: each may still be one, or not."""
    draw = np.random.default_rng(0)
    changed = []
    for i in range(count):
        data = bytearray(picture(i, ("JPEG", "PNG", "WEBP")[i % 3]))
        for position in draw.integers(0, min(len(data), 400), draw.integers(1, 8)):
            data[position] = draw.integers(0, 256)
        changed.append(bytes(data))
    return changed


CASES = [*wrong_types(), *wrong_shapes(), *broken_json(), *bad_base64(), *links(), *bad_images()]
