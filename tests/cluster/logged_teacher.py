"""A teacher of another package that logs its work, and a cluster whose workers find it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from other_packages import install_package
from vl2v.data.images import ImageFile
from vl2v.progress import Progress
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.image_set import ImageSet
from vl2v.teacher.purchase.ledger import Budget, Ledger
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.registry import open_teacher

CODE = """
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vl2v.errors import DataError
from vl2v.teacher.base import TeacherCard

BATCH = 4


class Logged:
    "Its folder has one file per batch, which is renamed when the batch is done."

    def __init__(self, folder, device):
        self.folder, self.device = Path(folder), device

    def describe(self):
        revision = self.device or "here" if (self.folder / "differs").exists() else "1"
        return TeacherCard("logged:", revision, 8, 10.0, batch_size=BATCH)

    def embed_images(self, images):
        names = [hashlib.sha256(image).hexdigest() for image in images]
        (self.folder / "batches").mkdir(exist_ok=True)
        file = self.folder / "batches" / f"{os.getpid()}-{time.monotonic_ns()}.begun"
        file.write_text(" ".join(names))
        if (self.folder / "deadly").exists() and self.device:
            os._exit(1)
        began = time.monotonic()
        while time.monotonic() - began < float((self.folder / "seconds").read_text() or 0):
            time.sleep(0.02)
        whole = hashlib.sha256(b"".join(images)).digest()  # an embedding depends on the batch
        rows = [np.frombuffer(hashlib.sha256(whole + image).digest(), np.uint32) for image in images]
        file.rename(file.with_suffix(".done"))
        return np.stack(rows).astype(np.float32)

    def embed_texts(self, texts):
        return np.eye(8, dtype=np.float32)[: len(texts)]


def open_logged(rest, price, device):
    return Logged(rest, device)


@dataclass(frozen=True)
class Only:
    "An image that one process can read."

    file: object
    pid: int

    @property
    def name(self):
        return self.file.name

    def read(self):
        if os.getpid() != self.pid:
            raise DataError("x changed.", expected="the content that was read before", found="no such file")
        return self.file.read()
"""


def install(site: Path) -> None:
    """Install the package of the teacher ``logged:<folder>`` into a folder of `sys.path`."""
    install_package(site, "logged", CODE, "[vl2v.teachers]\nlogged = logged:open_logged\n")


@dataclass(frozen=True)
class Work:
    """Images, a teacher that logs, and a store."""

    root: Path

    @classmethod
    def made(cls, root: Path, images: int = 26, seconds: float = 0.0) -> Work:
        """Create distinct images and a duplicate of the first one."""
        work = cls(root)
        (root / "images").mkdir(parents=True)
        (root / "log").mkdir()
        work.take(seconds)
        for i in range(images + 1):
            (root / "images" / f"{i:02}.bin").write_bytes(b"image %d" % (i % images))
        return work

    def take(self, seconds: float) -> None:
        """Set the duration of a batch."""
        (self.root / "log" / "seconds").write_text(str(seconds))

    @property
    def files(self) -> list[ImageFile]:
        """Return the images."""
        paths = sorted((self.root / "images").iterdir())
        return [ImageFile(path, hashlib.sha256(path.read_bytes()).digest(), path.name) for path in paths]

    @property
    def digests(self) -> np.ndarray:
        """Return the SHA-256 of each image."""
        return np.array([list(file.digest) for file in self.files], np.uint8)

    def buy(self, store: Path, progress: Progress | None = None, image_set: ImageSet | None = None) -> int:
        """Buy all images; returns the number that were bought."""
        files, spec = self.files, f"logged:{self.root / 'log'}"
        with closing(EmbeddingStore(store)) as opened:
            buyer = Buyer(open_teacher(spec), opened, Budget(None, currency="USD"), "run", progress, spec=spec)
            return buyer.buy(image_set or ImageSet.of(self.digests, files.__getitem__, "training"))

    def saved(self, store: Path) -> tuple[bytes, int]:
        """Return the saved embeddings and the number of image queries in the ledger."""
        card = open_teacher(f"logged:{self.root / 'log'}").describe()
        with closing(EmbeddingStore(store)) as opened:
            return opened.images(card, self.digests).tobytes(), Ledger(opened).queries("run")

    def batches(self, state: str) -> list[Path]:
        """Return the batches in a state: `begun` and not done, or `done`."""
        return sorted((self.root / "log" / "batches").glob(f"*.{state}"))

    def times_embedded(self) -> Counter[str]:
        """Return how often each image was embedded, by its SHA-256."""
        return Counter(name for file in self.batches("done") for name in file.read_text().split())

    def workers(self) -> set[int]:
        """Return other processes that started to embed images."""
        files = (self.root / "log" / "batches").iterdir()
        return {int(file.name.partition("-")[0]) for file in files} - {os.getpid()}
