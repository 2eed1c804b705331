"""Every kind of data set beyond folders and plain tables. Packages of others add one by an entry point.

A kind is one file and one line here. Nothing of a package is imported before data are opened.
"""

from __future__ import annotations

from vl2v.plugins import Plugins
from vl2v.sources.base import Source

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
    """The kind of data set that a text stands for; None for a folder of images or a plain table.

    Raises:
        ConfigError: if no built-in kind claims it, and a kind of another package cannot be used.
    """
    return next((source for source in SOURCES.values() if source.claims(data)), None)
