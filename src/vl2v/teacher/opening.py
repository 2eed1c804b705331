"""Open a teacher from its name."""

from __future__ import annotations

from vl2v.errors import TeacherError
from vl2v.teacher.base import Price, Teacher
from vl2v.teacher.http.uri import is_remote, open_wire

KINDS = {
    "open_clip": "open_clip:<model>/<tag or file>   a CLIP-like model on this machine",
    "file": "file:<path.npz or path.parquet>   precomputed embeddings",
    "offline": "offline:   a small vision-language model that ships with vl2v (extra: demo)",
    "conse": "conse:   an offline teacher from pip packages (extra: demo)",
    "http": "http://host:port/v1 or https://...   a vl2v vendor, infinity, vLLM, LiteLLM; #model=..&style=..",
    "jina": "jina:jina-clip-v2   key: JINA_API_KEY",
    "cohere": "cohere:embed-v4.0   key: COHERE_API_KEY",
    "voyage": "voyage:voyage-multimodal-3   key: VOYAGE_API_KEY",
    "vertex": "vertex:multimodalembedding@001   (extra: vertex)",
    "bedrock": "bedrock:amazon.titan-embed-image-v1   (extra: bedrock)",
    "azure": "azure:<endpoint>   key: AZURE_VISION_KEY",
}


def open_teacher(spec: str, *, price: Price | None = None, device: str | None = None) -> Teacher:
    """Open a teacher from its name.

    Args:
        spec: a name in one of the formats in `KINDS`.
        price: what a ``file:`` teacher's look-ups are booked at, or what a vendor charges if its adapter does not know;
            ``Price()`` says that the vendor charges nothing.
        device: where a local model runs; None chooses.

    Raises:
        TeacherError: if there is no such teacher, or it cannot be opened.
        MissingExtraError: if it needs a package that is not installed.
    """
    kind, colon, rest = spec.partition(":")
    if kind == "open_clip" and rest:
        from vl2v.teacher.open_clip import OpenClipTeacher

        return OpenClipTeacher(rest, device)
    if kind == "file" and rest:
        from vl2v.teacher.file import FileTeacher

        return FileTeacher(rest, price)
    if kind == "offline" and colon and not rest:
        from vl2v.teacher.offline.teacher import OfflineVendor

        return OfflineVendor(device or "cpu")
    if kind == "conse" and colon and not rest:
        from vl2v.teacher.conse import ConseTeacher

        return ConseTeacher()
    if is_remote(spec):
        from vl2v.teacher.http.client import HttpTeacher

        return HttpTeacher(open_wire(spec, price))
    expected = "\n    ".join(["one of", *KINDS.values()])
    raise TeacherError(f"Unknown teacher '{spec}'.", expected=expected, found=spec, next_step="correct --teacher")
