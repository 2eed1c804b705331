"""The registry of teachers.

A teacher is one module and one line in this file. Another package can add a teacher with an entry point in the group
``vl2v.teachers``. The module of a teacher is imported when the teacher is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vl2v.errors import ConfigError, TeacherError
from vl2v.hints import did_you_mean
from vl2v.plugins import Plugins
from vl2v.teacher.base import Price, Teacher

if TYPE_CHECKING:
    from vl2v.teacher.http.vendors.base import Wire

Factory = Callable[[str, Price | None, str | None], Teacher]
"""A function that opens a teacher from the part of its name after the colon, a price and a device."""

_VENDORS = "vl2v.teacher.http.vendors"
LOCAL = {  # a factory and the format of the name
    "open_clip": (
        "vl2v.teacher.open_clip:from_name",
        "open_clip:<model>/<tag or file>   a CLIP-like model on this machine",
    ),
    "file": ("vl2v.teacher.file:from_name", "file:<path.npz or path.parquet>   precomputed embeddings"),
    "offline": (
        "vl2v.teacher.offline.teacher:from_name",
        "offline:   a small vision-language model that ships with vl2v (extra: demo)",
    ),
    "conse": ("vl2v.teacher.conse:from_name", "conse:   an offline teacher from pip packages (extra: demo)"),
}
VENDORS = {  # an HTTP adapter and the format of the name
    "http": (
        f"{_VENDORS}.openai_compatible:OpenAICompatible",
        "http://host:port/v1 or https://...   a vl2v vendor, infinity, vLLM, LiteLLM; #model=..&style=..",
    ),
    "https": (f"{_VENDORS}.openai_compatible:OpenAICompatible", ""),
    "jina": (f"{_VENDORS}.jina:Jina", "jina:jina-clip-v2   key: JINA_API_KEY"),
    "cohere": (f"{_VENDORS}.cohere:Cohere", "cohere:embed-v5.0-pro   or embed-v4.0; key: COHERE_API_KEY"),
    "voyage": (f"{_VENDORS}.voyage:Voyage", "voyage:voyage-multimodal-3.5   key: VOYAGE_API_KEY"),
    "vertex": (f"{_VENDORS}.vertex:Vertex", "vertex:multimodalembedding@001   (extra: vertex)"),
    "gemini": (f"{_VENDORS}.gemini:Gemini", "gemini:gemini-embedding-2   key: GEMINI_API_KEY"),
    "bedrock": (
        f"{_VENDORS}.bedrock:Bedrock",
        "bedrock:amazon.nova-2-multimodal-embeddings-v1:0   or amazon.titan-embed-image-v1; key:"
        " AWS_BEARER_TOKEN_BEDROCK, or the AWS credentials (extra: bedrock)",
    ),
    "azure": (f"{_VENDORS}.azure:Azure", "azure:<endpoint>   key: AZURE_VISION_KEY"),
}
ADDRESSED = ("http", "https", "azure")
"""Vendors whose names contain the address of a server. All others have servers of their own."""
TEACHERS: Plugins[Factory | type[Wire]] = Plugins(
    "vl2v.teachers",
    "teacher",
    {name: target for name, (target, _) in (LOCAL | VENDORS).items()},
    "a subclass of vl2v.teacher.http.vendors.base.Wire, or a function of name, price and device",
    lambda name, teacher: callable(teacher),
)


def open_teacher(
    spec: str, *, price: Price | None = None, device: str | None = None, batch_api: bool = False
) -> Teacher:
    """Open a teacher from its name.

    Args:
        spec: a name in one of the formats in `LOCAL` and `VENDORS`, or ``<entry point>:...`` of another package.
        price: price of the queries of a ``file:`` teacher, or of a vendor whose price is not known. ``Price()`` states
            that the vendor is free.
        device: device of a local model, such as ``cpu`` or ``cuda``; None selects one.
        batch_api: whether to buy images by the batch API of the vendor, which takes hours and costs less.

    Raises:
        TeacherError: if the teacher is unknown or cannot be opened, or has no batch API for images.
        ConfigError: if the teacher of another package is unusable, or the device is not available.
        MissingExtraError: if a required package is not installed.
    """
    if is_remote(spec):
        from vl2v.teacher.http.client import HttpTeacher
        from vl2v.teacher.http.uri import open_wire

        return HttpTeacher(open_wire(spec, price, batch_api=batch_api))
    kind, colon, location = spec.partition(":")
    usage = LOCAL[kind][1] if kind in LOCAL else ""
    if not colon or kind not in TEACHERS or (usage and bool(location) != usage.startswith(f"{kind}:<")):
        usages = [usage for _, usage in (LOCAL | VENDORS).values() if usage]
        usages += [f"{name}:..." for name in TEACHERS if name not in TEACHERS.built_in]
        expected = "\n    ".join(["one of", *usages])
        near = did_you_mean(f"{kind}:", [f"{name}:" for name in TEACHERS if f"{name}:" != spec])
        step = f"correct --teacher{near}"
        raise TeacherError(f"Unknown teacher '{spec}'.", expected=expected, found=spec, next_step=step)
    if batch_api:
        expected, found = "a vendor with a batch API, e.g. gemini:gemini-embedding-2", f"{kind}:"
        problem, step = "This teacher has no batch API.", "omit --batch-api"
        raise TeacherError(problem, expected=expected, found=found, next_step=step)
    check_device(device)
    factory: Factory = TEACHERS[kind]  # type: ignore[assignment]  # a Wire is remote
    return factory(location, price, device)


def is_remote(spec: str) -> bool:
    """Whether a name denotes a teacher that is queried over a network."""
    kind, colon, _ = spec.partition(":")
    if kind in LOCAL or kind in VENDORS:
        return kind in VENDORS
    return bool(colon) and kind in TEACHERS and isinstance(TEACHERS[kind], type)


def check_device(device: str | None) -> None:
    """Refuse a device on which torch cannot place a tensor.

    Raises:
        ConfigError: if it cannot.
    """
    if device in (None, "cpu"):
        return
    import torch

    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:  # each backend raises its own
        raise ConfigError(
            f"This machine has no device '{str(device)[:40]}'.",
            expected="cpu, or a device that torch supports, such as cuda or cuda:1",
            found=" ".join(str(error).split())[:200],
            next_step="correct the device, or omit it",
        ) from error
