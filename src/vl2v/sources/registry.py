"""Registry of data sources other than folders and plain tables.

A source is one file and one line here. Other packages register theirs with an entry point (``vl2v.sources``). Optional
packages are imported when data are opened.
"""

from __future__ import annotations

import re
from pathlib import Path

from vl2v.errors import DataError
from vl2v.plugins import Plugins
from vl2v.sources.base import Source
from vl2v_runtime.names import shown

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # pathlib drops one of two slashes; a drive has one letter
BUILT_IN = {
    "hub": "vl2v.sources.hub:HUB",
    "datasets": "vl2v.sources.columnar:DATASETS",
    "webdataset": "vl2v.sources.webdataset:WEBDATASET",
    "label-studio": "vl2v.sources.label_studio:LABEL_STUDIO",
    "cvat": "vl2v.sources.cvat:CVAT",
}
SOURCES: Plugins[Source] = Plugins(
    "vl2v.sources", "source", BUILT_IN, "a vl2v.sources.base.Source", lambda name, source: isinstance(source, Source)
)


def find_source(data: str) -> Source | None:
    """Return the source that reads a path or an address; None for a folder of images or a plain table.

    Raises:
        ConfigError: if no built-in source claims it, and a source of another package cannot be imported.
        DataError: if it is an address that no source claims.
    """
    reader = next((source for source in SOURCES.values() if source.claims(data)), None)
    if reader is None and ADDRESS.match(data) and not Path(data).exists():
        scheme, _, path = data.partition(":")
        address = data if path.startswith("//") else f"{scheme}:/{path}"  # as before `pathlib` shortened it
        raise DataError(
            f"Data cannot be read from the address {shown(address[:200])}.",
            expected="a folder or a file on this machine, or a dataset of the hub: hf:user/name",
            found=f"an address with the scheme {scheme}",
            next_step="download it; or list the addresses of the images in a table (.csv), and give the table",
        )
    return reader
