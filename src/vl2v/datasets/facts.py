"""Facts about the benchmarks, each with its reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Archive:
    """A file of a source.

    Attributes:
        md5: published MD5 sum, in hexadecimal; empty if unknown.
        sha256: published SHA-256, in hexadecimal; empty if unknown.
    """

    url: str
    name: str
    md5: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Release:
    """Another release of a benchmark, with other numbers of images.

    Attributes:
        images: number of images by domain.
    """

    about: str
    images: Mapping[str, int]


@dataclass(frozen=True)
class Benchmark:
    """Facts about a benchmark.

    Attributes:
        images: number of images by domain, according to DomainBed.
        download_bytes: approximate size of the default source in bytes.
        hub: dataset on the Hugging Face hub that is the default source; empty if there is none.
        revision: commit of `hub` for which the numbers are valid.
        archives: official files, which are the default source without `hub`.
        classes: sorted names of the classes; empty if they are not listed here.
        images_per_class: number of images by domain and class, if known.
        aliases: names of domains by their other names.
    """

    name: str
    paper: str
    licence: str
    images: Mapping[str, int]
    class_count: int
    download_bytes: int
    hub: str = ""
    revision: str = ""
    archives: tuple[Archive, ...] = ()
    classes: tuple[str, ...] = ()
    images_per_class: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    releases: tuple[Release, ...] = ()

    @property
    def total(self) -> int:
        """Total number of images."""
        return sum(self.images.values())

    @property
    def source(self) -> str:
        """Description of the default source."""
        hosts = sorted({archive.url.split("/")[2] for archive in self.archives})
        return f"{self.hub} (Hugging Face hub)" if self.hub else ", ".join(hosts)


def _drive(file: str) -> str:
    # confirm=t skips the page that warns of files too large for a virus scan.
    return f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t"


_PACS_CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")

PACS = Benchmark(
    name="PACS",
    paper="Li et al., ICCV 2017, arXiv 1710.03077",
    licence="No licence is stated (hub: unknown); images from Caltech256, Sketchy, TU-Berlin and Google Images, "
    "used for research.",
    images={"art_painting": 2_048, "cartoon": 2_344, "photo": 1_670, "sketch": 3_929},
    class_count=7,
    download_bytes=191_395_900,
    hub="flwrlabs/pacs",
    revision="394113073258ead631f617d2e13bb377c0715c4b",
    archives=(Archive(_drive("1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd"), "PACS.zip"),),  # DomainBed's
    classes=_PACS_CLASSES,
    images_per_class={
        "art_painting": dict(zip(_PACS_CLASSES, (379, 255, 285, 184, 201, 295, 449), strict=True)),
        "cartoon": dict(zip(_PACS_CLASSES, (389, 457, 346, 135, 324, 288, 405), strict=True)),
        "photo": dict(zip(_PACS_CLASSES, (189, 202, 182, 186, 199, 280, 432), strict=True)),
        "sketch": dict(zip(_PACS_CLASSES, (772, 740, 753, 608, 816, 80, 160), strict=True)),
    },
    aliases={"art": "art_painting"},
)

VLCS = Benchmark(
    name="VLCS",
    paper="Fang, Xu and Rockmore, ICCV 2013",
    licence="No licence is stated; photos of Caltech101, LabelMe, SUN09 and PASCAL VOC 2007 under their owners' terms; "
    "used for research.",
    images={"Caltech101": 1_415, "LabelMe": 2_656, "SUN09": 3_282, "VOC2007": 3_376},
    class_count=5,
    download_bytes=3_600_000_000,
    archives=(
        # DomainBed's file; the sum is from one project that checks it.
        Archive(_drive("1skwblH1_okBwxWxmRsp9_qi15hyPpxg8"), "VLCS.tar.gz", "8870171eba660927d9668f4e515928e4"),
    ),
    classes=("bird", "car", "chair", "dog", "person"),
    aliases={"caltech": "Caltech101", "sun": "SUN09", "pascal": "VOC2007", "voc": "VOC2007"},
)

# fmt: off
_OFFICE_HOME_CLASSES = (
    "Alarm_Clock", "Backpack", "Batteries", "Bed", "Bike", "Bottle", "Bucket", "Calculator", "Calendar", "Candles",
    "Chair", "Clipboards", "Computer", "Couch", "Curtains", "Desk_Lamp", "Drill", "Eraser", "Exit_Sign", "Fan",
    "File_Cabinet", "Flipflops", "Flowers", "Folder", "Fork", "Glasses", "Hammer", "Helmet", "Kettle", "Keyboard",
    "Knives", "Lamp_Shade", "Laptop", "Marker", "Monitor", "Mop", "Mouse", "Mug", "Notebook", "Oven", "Pan",
    "Paper_Clip", "Pen", "Pencil", "Postit_Notes", "Printer", "Push_Pin", "Radio", "Refrigerator", "Ruler",
    "Scissors", "Screwdriver", "Shelf", "Sink", "Sneakers", "Soda", "Speaker", "Spoon", "TV", "Table", "Telephone",
    "ToothBrush", "Toys", "Trash_Can", "Webcam",
)
# fmt: on

OFFICE_HOME = Benchmark(
    name="OfficeHome",
    paper="Venkateswara et al., CVPR 2017",
    licence="Fair use notice of its authors: copyrighted images, for non-commercial research and education only.",
    images={"Art": 2_427, "Clipart": 4_365, "Product": 4_439, "Real World": 4_357},
    class_count=65,
    download_bytes=1_158_984_115,
    hub="flwrlabs/office-home",
    revision="d430d44779e929b335be368ab3456484e5de36bb",
    archives=(
        # DomainBed's file; the sum is the same in four projects that check it.
        Archive(_drive("1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC"), "office_home.zip", "b1c14819770c4448fd5b6d931031c91c"),
    ),
    classes=_OFFICE_HOME_CLASSES,
)

_LILA = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"

TERRA_INCOGNITA = Benchmark(
    name="TerraIncognita",
    paper="Beery, Van Horn and Perona, ECCV 2018, arXiv 1807.04975",
    licence="Community Data License Agreement, permissive variant 1.0 (Caltech Camera Traps, lila.science).",
    # By domain: github.com/khanrc/miro/issues/9, from the copy used for the published tables.
    images={"location_100": 4_879, "location_38": 9_767, "location_43": 4_020, "location_46": 6_122},
    class_count=10,
    download_bytes=6_492_615_601,
    archives=(
        Archive(f"{_LILA}/labels/caltech_camera_traps.json.zip", "caltech_camera_traps.json.zip"),
        Archive(f"{_LILA}/eccv_18_all_images_sm.tar.gz", "eccv_18_all_images_sm.tar.gz"),
    ),
    classes=("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel"),
    aliases={f"{prefix}{n}": f"location_{n}" for prefix in ("", "l") for n in (38, 43, 46, 100)},
    releases=(
        Release(
            "24,330 images, as today's annotation files give them; most papers' tables are of 24,788, which are no "
            "longer distributed",
            {"location_100": 4_741, "location_38": 9_736, "location_43": 3_970, "location_46": 5_883},
        ),
    ),
)

_BU = "http://csr.bu.edu/ftp/visda/2019/multi-source"

DOMAIN_NET = Benchmark(
    name="DomainNet",
    paper="Peng et al., ICCV 2019, arXiv 1812.01754 (cleaned version)",
    licence="Fair use notice of its authors: copyrighted images, for non-commercial research and education only.",
    images={  # ai.bu.edu/M3SDA, "Cleaned"
        "clipart": 48_129,
        "infograph": 51_605,
        "painting": 72_266,
        "quickdraw": 172_500,
        "real": 172_947,
        "sketch": 69_128,
    },
    class_count=345,
    download_bytes=18_524_149_098,
    hub="wltjr1007/DomainNet",
    revision="ee20570ae7a29c51571e55a9a17983f7625295d6",
    # The zips contain images that the lists leave out. Two projects that check all sums have the same ones, and six
    # projects those of the zips.
    archives=tuple(
        Archive(f"{_BU}/{path}", path.rsplit("/", 1)[-1], md5)
        for path, md5 in (
            ("groundtruth/clipart.zip", "cd0d8f2d77a4e181449b78ed62bccf1e"),
            ("infograph.zip", "720380b86f9e6ab4805bb38b6bd135f8"),
            ("groundtruth/painting.zip", "1ae32cdb4f98fe7ab5eb0a351768abfd"),
            ("quickdraw.zip", "bdc1b6f09f277da1a263389efe0c7a66"),
            ("real.zip", "dcc47055e8935767784b7162e7c7cca6"),
            ("sketch.zip", "658d8009644040ff7ce30bb2e820850f"),
            ("domainnet/txt/clipart_train.txt", "b4349693a7f9c05c53955725c47ed6cb"),
            ("domainnet/txt/clipart_test.txt", "f5ddbcfd657a3acf9d0f7da10db22565"),
            ("domainnet/txt/infograph_train.txt", "379b50054f4ac2018dca4f89421b92d9"),
            ("domainnet/txt/infograph_test.txt", "779626b50869edffe8ea6941c3755c71"),
            ("domainnet/txt/painting_train.txt", "7db0e7ca73ad9982f6e1f7f3ef372c0a"),
            ("domainnet/txt/painting_test.txt", "232b35dc53f26d414686ae579e38d9b5"),
            ("domainnet/txt/quickdraw_train.txt", "b732ced3939ac8efdd8c0a889dca56cc"),
            ("domainnet/txt/quickdraw_test.txt", "c1a828fdfe216fb109f1c0083a252c6f"),
            ("domainnet/txt/real_train.txt", "8ebf02c2075fadd564705f0dc7cd6291"),
            ("domainnet/txt/real_test.txt", "6098816791c3ebed543c71ffa11b9054"),
            ("domainnet/txt/sketch_train.txt", "1233bd18aa9a8a200bf4cecf1c34ef3e"),
            ("domainnet/txt/sketch_test.txt", "d8a222e4672cfd585298aa14d02ea441"),
        )
    ),
)

BENCHMARKS = (PACS, VLCS, OFFICE_HOME, TERRA_INCOGNITA, DOMAIN_NET)
