"""Settings of the inputs of a run: the dataset, the teacher and the student."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from vl2v.data.tables.base import is_table
from vl2v.options import Option, Panel
from vl2v.strict import Fraction, Positive, Strict
from vl2v_runtime.fits import SQUASH, Fit

Money = Annotated[Decimal, Field(ge=0, le=1_000_000_000_000)]
Channels = tuple[float, float, float]
PRICES = ("teacher.price_per_1000_images", "teacher.price_per_1000_texts", "teacher.free")
"""Keys of the settings that state the price of a teacher."""


class DataConfig(Strict):
    """Settings of the dataset."""

    root: Path
    """A folder of images, a table that lists them (.csv, ...), or a dataset of another tool (hf:user/name, ...)."""
    image: Annotated[str | None, Panel.data] = None
    """Table column with the image paths (default: recognised by name).

    Paths are absolute, or relative to the table's folder. The run records the name here."""
    label: Annotated[str | None, Panel.data] = None
    """Table column with the classes (default: recognised by name)."""
    domain: Annotated[str | None, Option("Data", ("--domain", "--domain-column"))] = None
    """Table column with the domains (default: recognised by name), or none for a single domain."""
    split: Annotated[str | None, Panel.data] = None
    """Table column with the split: train, validation or test (default: random split).

    Test images are used for evaluation only."""
    group: Annotated[str | None, Panel.data] = None
    """Table column with groups, such as clips or patients; a group is never split."""
    balance: Annotated[Fraction | Literal["auto"], Panel.data] = 0.0
    """Class-balanced sampling, from 0 (all images equally often; default) to 1 (all classes), or auto.

    In each source domain, the probability of a class is proportional to the number of its images to the power of
    1 - balance. Images without labels are not affected. ``auto`` chooses 0, 0.5 or 1 before training, by the macro
    accuracy of a regression on the features of the pretrained backbone, on the validation images of the source
    domains; `config.yaml` then has the number."""
    classes: Annotated[tuple[str, ...], Option("Data", joined=True)] = ()
    """Class names for images without labels: cat,dog,... or a file with one name per line.

    Empty if the images have labels. See `vl2v.data.classes.class_names`; the names themselves are stored."""
    class_first: Annotated[bool, Panel.data] = False
    """Read folders as class/domain/image (default: domain/class/image)."""
    domain_folders: Annotated[bool, Panel.data] = False
    """With --classes: treat first-level folders as domains (default: one domain)."""
    held_out: Annotated[tuple[str, ...], Panel.data] = ()
    """Domain to hold out from training and model selection, for testing; repeatable."""
    held_out_classes: Annotated[tuple[str, ...], Option("Data", ("--held-out-class",))] = ()
    """Class to hold out from training and validation; it is evaluated afterwards, by its name alone. Repeatable."""
    unlabelled: Annotated[Path | None, Panel.data] = None
    """Additional training images without labels: a folder, a table or a dataset, like DATA."""
    labels_per_class: Annotated[Positive | None, Panel.data] = None
    """Number of labels per class and source domain; proportional for validation (default: all)."""
    rest_unlabelled: Annotated[bool, Panel.data] = False
    """Use the images beyond --labels-per-class as unlabelled images."""
    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of every source domain that is used for validation."""
    skip_bad: Annotated[bool, Panel.data] = False
    """Skip unreadable image files."""
    allow_missing_classes: Annotated[bool, Panel.data] = False
    """Accept classes that are missing from some domains."""
    drop: Annotated[Path | None, Panel.data] = None
    """CSV file of images to leave out, such as suspects.csv of vl2v data suspects.

    Its column ``path`` has paths below the folder of the data. With a column ``drop``, only rows with yes count."""
    layout_as_found: Annotated[bool, Panel.data] = False
    """Accept folders named like splits or dates or, with --classes, like classes.

    Also accept classes named like domains, an additional level of folders, and folders without images."""

    @property
    def exponent(self) -> float:
        """`balance` as a number; a run has replaced ``auto`` before it trains."""
        return 0.0 if self.balance == "auto" else self.balance

    @property
    def folder(self) -> Path:
        """The folder to which image paths are relative."""
        return self.root.parent if is_table(self.root) else self.root

    @field_validator("classes", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """Parse a string or a list of strings; an empty list means that the images have labels."""
        from vl2v.data.classes import class_names  # imports numpy

        texts = isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value)
        return class_names(value) if isinstance(value, str | Path) or texts else value


class TeacherConfig(Strict):
    """Settings of the teacher."""

    spec: Annotated[str, Option("Teacher", ("--teacher",))]
    """Teacher: open_clip:<model>/<tag or file>, file:<path>, offline:, conse:, http(s)://.../v1, jina:, ..."""
    views: Annotated[Positive | Literal["fresh"], Panel.teacher] = 1
    """Views to buy per training image (default: 1, the image itself), or fresh (see the docs).

    The views are fixed and seeded. ``fresh`` also queries a teacher on this machine with every augmented image of
    Distill."""
    prompts: Annotated[str | tuple[str, ...], Panel.teacher] = "photo"
    """Prompts: photo (default), name, clip-80, a template with {}, or a file of templates."""
    zero_shot: Annotated[bool, Panel.teacher] = True
    """Also query the evaluation images, to report the teacher's zero-shot accuracy."""
    price_per_1000_images: Annotated[Money, Panel.money] = Decimal(0)
    """Price of 1000 images, if the vendor does not publish it, or for a file: teacher."""
    price_per_1000_texts: Annotated[Money, Panel.money] = Decimal(0)
    """Price of 1000 texts, in the same cases."""
    accept: Annotated[bool, Option("Teacher", ("--accept-teacher",))] = False
    """Continue even if the teacher's responses look useless.

    They do if different images or texts have the same embedding, if the order is wrong, or if the zero-shot accuracy
    is at chance level."""
    free: Annotated[bool, Panel.money] = False
    """Confirm that a vendor without published prices is free."""
    batch_api: Annotated[bool, Panel.money] = False
    """Buy images by the vendor's batch API, at a lower price; answers take hours.

    Prompts are bought by single requests. A command that was stopped collects its jobs when it is repeated."""

    @property
    def kept_views(self) -> int:
        """Number of views of every training image that are bought and stored."""
        return 1 if self.views == "fresh" else self.views


class StudentConfig(Strict):
    """Settings of the student."""

    spec: Annotated[str, Option("Student", ("--student",))] = ""
    """Student: timm:<name>, timm:<name>@<checkpoint>, offline:, or teacher (VL2V-SD, open_clip only)."""
    size: Annotated[Annotated[int, Field(ge=16, le=1024)] | None, Panel.student] = None
    """Input size of the student in pixels (default: that of its pretrained weights)."""
    final_size: Annotated[Literal["train", "auto"], Panel.student] = "train"
    """Image size that the trained student is used with: train or auto (default: auto; train with --size).

    ``train`` is the size of training. ``auto`` also tries 1.25 and 1.5 times this size, but at most the size of the
    pretrained weights, and takes the larger size if it costs no more than half a point of accuracy on the
    validation images."""
    fit: Annotated[Fit, Panel.student] = SQUASH
    """How an image becomes a square: squash (default), crop or pad.

    ``squash`` resizes the whole image, ``crop`` takes the largest central square, ``pad`` keeps the shape and fills the
    rest."""
    mean: Channels | None = None
    std: Channels | None = None
