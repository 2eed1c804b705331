"""Published averages, for comparison in tables."""

from __future__ import annotations

from dataclasses import dataclass

BENCHMARKS = ("PACS", "VLCS", "OfficeHome", "TerraInc", "DomainNet")
SOURCE = (
    "ViT-B/16 student, CLIP ViT-B/16 teacher, "
    "as tabulated by an AAAI 2026 paper that compares them (VL2V is arXiv 2310.08255)"
)


@dataclass(frozen=True)
class Published:
    """A row of a published table.

    Attributes:
        averages: accuracies averaged over target domains in percent, in the order of `BENCHMARKS`.
        mean: mean over the benchmarks in percent, as published.
    """

    method: str
    title: str
    averages: tuple[float, ...]
    mean: float

    def average(self, benchmark: str) -> float | None:
        """Return the accuracy on a benchmark in [0, 1]; None if not published. Case and punctuation are ignored."""
        key = _plain(benchmark)
        averages = {_plain(name): value for name, value in zip(BENCHMARKS, self.averages, strict=True)}
        averages["terraincognita"] = averages["terrainc"]
        return averages[key] / 100 if key in averages else None


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


PUBLISHED = (
    Published("zero-shot", "zero-shot CLIP", (96.1, 82.3, 81.8, 33.8, 56.6), 70.2),
    Published("erm-clip", "ERM from CLIP weights", (85.8, 78.5, 78.1, 41.0, 52.2), 67.1),
    Published("miro-clip", "MIRO from CLIP weights", (96.7, 82.4, 87.3, 52.3, 50.6), 73.9),
    Published("adip", "VL2V-ADiP (black box)", (94.9, 81.9, 85.7, 55.4, 59.4), 75.5),
    Published("sd", "VL2V-SD (white box)", (96.7, 83.3, 87.4, 58.5, 62.8), 77.7),
    Published("moe-squared", "MoE-squared (2026)", (97.6, 83.6, 90.9, 56.2, 62.3), 78.1),
)
