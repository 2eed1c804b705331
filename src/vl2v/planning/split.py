"""The split of a dataset into training, validation and test images, drawn or as stated in the data."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vl2v.config import DataConfig
from vl2v.data.images import ImageDataset
from vl2v.data.layout import CLASS_FIRST
from vl2v.data.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    DatasetRows,
    Indices,
    domainbed_holdout,
    grouped_holdout,
    labels_per_class,
)
from vl2v.errors import ConfigError, DataError
from vl2v.hints import did_you_mean
from vl2v.validation import parse
from vl2v_runtime.names import quoted, shown


@dataclass(frozen=True)
class Split:
    """The split of a dataset.

    Attributes:
        training: labelled training images, by source domain.
        test: images of held-out domains, used for neither training nor selection.
        rest: source images that are used for training without their labels.
        own_test: test images that the data state, by source domain; used for neither training nor selection.
        left_out: number of source images that are not used because their groups have test images.
    """

    sources: tuple[str, ...]
    training: dict[str, DatasetRows]
    validation: dict[str, DatasetRows]
    test: dict[str, DatasetRows]
    rest: DatasetRows
    own_test: Mapping[str, DatasetRows] = field(default_factory=dict)
    left_out: int = 0

    @property
    def evaluation_parts(self) -> tuple[Mapping[str, DatasetRows], ...]:
        """Evaluated images by domain: validation images, stated test images, and held-out domains."""
        return self.validation, self.own_test, self.test

    @property
    def evaluation_rows(self) -> DatasetRows:
        """Rows of all evaluated images. An index into this array is a split position."""
        return np.concatenate([rows for part in self.evaluation_parts for rows in part.values()])


def match_domains(names: Sequence[str], domains: Sequence[str]) -> tuple[str, ...]:
    """Return the domains with given names, as their folders are written. Unknown names are ignored.

    Names are compared in Unicode's composed form, since file systems such as that of macOS decompose accents.
    """
    by_name = {unicodedata.normalize("NFC", domain): domain for domain in domains}
    matches = (name if name in domains else by_name.get(unicodedata.normalize("NFC", name)) for name in names)
    return tuple(dict.fromkeys(name for name in matches if name is not None))


def check_domains(
    held_out: Sequence[str],
    domains: Sequence[str],
    flag: str = "--held-out",
    *,
    classes: Sequence[str] = (),
    class_first: bool = False,
) -> tuple[str, ...]:
    """Return the names of held-out domains as their folders are written.

    `classes` and `class_first`, which states whether they are above the domains, are for the message only.

    Raises:
        ConfigError: if a domain is unknown, or no domain is left for training.
    """
    expected = f"one or more of {', '.join(map(shown, domains))}"
    step = f"correct {flag}"
    if unknown := [name for name in held_out if not match_domains([name], domains)]:
        if match_domains(unknown, classes):
            class_names = ", ".join(map(shown, classes[:5])) + (", ..." if len(classes) > 5 else "")
            step += f"; {class_names} are classes: if these folders are the domains, "
            step += f"{'omit' if class_first else 'add'} {CLASS_FIRST}"
        elif all(match_domains([part], domains) for part in unknown[0].split(",")):
            step = f"repeat {flag} for each: " + " ".join(f"{flag} {quoted(part)}" for part in unknown[0].split(","))
        else:
            step += did_you_mean(unknown[0], domains)
        raise ConfigError("Unknown domain.", expected=expected, found=", ".join(map(shown, unknown)), next_step=step)
    found_domains = match_domains(held_out, domains)
    if flag == "--held-out" and set(found_domains) == set(domains):
        problem, found = "No domain is left for training.", "every domain held out"
        raise ConfigError(problem, expected=expected, found=found, next_step=step)
    return found_domains


def split_dataset(dataset: ImageDataset, config: DataConfig, seed: int) -> Split:
    """Draw the split of a run: DomainBed's holdout of every source domain, then the selection of labels.

    A split that the data state is used instead. If it has no validation images, they are drawn from the training
    images. Groups of images are not divided.

    Raises:
        DataError: if a source domain is too small to be divided, or has no training images.
    """
    held_out = match_domains(config.held_out, dataset.domains)
    sources = tuple(domain for domain in dataset.domains if domain not in held_out)
    test = {domain: dataset.rows_of(domain) for domain in held_out}
    blocked = _tested_groups(dataset, test)
    training, validation, unselected = {}, {}, [np.zeros(0, np.int64)]
    own_test: dict[str, DatasetRows] = {}
    held_out_groups: dict[int, bool] = {}
    left_out = 0
    for i, domain in enumerate(dataset.domains):
        if domain not in sources:
            continue
        rows = dataset.rows_of(domain)
        if dataset.parts is not None and len(tested := rows[dataset.parts[rows] == TEST]):
            own_test[domain] = tested
        free = rows if dataset.parts is None else rows[dataset.parts[rows] != TEST]
        if dataset.groups is not None:
            usable = free[~np.isin(dataset.groups[free], blocked)]
            left_out, free = left_out + len(free) - len(usable), usable
        train, out = _train_and_validation(dataset, free, config, seed, i, held_out_groups)
        if not len(out) or not len(train):
            raise _too_small(dataset, domain, config, train, out)
        if config.labels_per_class is not None:
            all_rows = train
            train = labels_per_class(train, dataset.labels, config.labels_per_class, seed, i)
            if config.rest_unlabelled:
                unselected.append(np.setdiff1d(all_rows, train))
            share = config.holdout_fraction / (1 - config.holdout_fraction)
            label_count = max(1, round(config.labels_per_class * share))  # as large a share as with all labels
            out = labels_per_class(out, dataset.labels, label_count, seed, i)
        training[domain], validation[domain] = train, out
    return Split(sources, training, validation, test, np.concatenate(unselected), own_test, left_out)


def is_dataset_of(dataset: ImageDataset, run_data: Mapping[str, Any]) -> bool:
    """Whether a dataset has the images, names and labels of a run.

    Without domains, the only domain is named after the folder of the images, which may have another name now.

    Args:
        run_data: ``data`` in the provenance of the run's student.
    """
    names = tuple(run_data.get("domains") or ())
    if len(names) == len(dataset.domains) == 1:
        dataset = replace(dataset, domains=names)
    return bool(run_data.get("digest") == dataset.digest())


def split_of_student(
    dataset: ImageDataset, provenance: Mapping[str, Any], data_config: DataConfig | None = None
) -> Split | None:
    """Repeat the split of the run that trained a student; None if these are not its images or its settings are unknown.

    Args:
        provenance: provenance of the student, validated by `check_provenance`.
        data_config: data settings of the run. None uses those in the provenance.
    """
    settings = (provenance.get("config") or {}).get("data")
    if not is_dataset_of(dataset, provenance.get("data") or {}) or (data_config is None and settings is None):
        return None
    config = data_config or parse(DataConfig, settings, "the student's provenance")
    return split_dataset(dataset, config, int(provenance.get("seed", 0)))


def _tested_groups(dataset: ImageDataset, test: Mapping[str, Indices]) -> Indices:
    """Return the groups with an image in a held-out domain or in the stated test part."""
    if dataset.groups is None:
        return np.zeros(0, np.int64)
    stated = np.zeros(0, np.int64) if dataset.parts is None else np.flatnonzero(dataset.parts == TEST)
    return np.unique(dataset.groups[np.concatenate([stated, *test.values()])])


def _train_and_validation(
    dataset: ImageDataset,
    rows: Indices,
    config: DataConfig,
    seed: int,
    domain_index: int,
    held_out_groups: dict[int, bool],
) -> tuple[Indices, Indices]:
    """Return the rows of the training and of the validation images of one domain."""
    train = rows
    if dataset.parts is not None:
        train, stated = rows[dataset.parts[rows] == TRAIN], rows[dataset.parts[rows] == VALIDATION]
        if len(stated) or not len(train):
            return train, stated
    if dataset.groups is not None:
        fraction = config.holdout_fraction
        remaining, held_out = grouped_holdout(
            dataset.groups[train], dataset.labels[train], held_out_groups, seed, domain_index, fraction
        )
    else:
        remaining, held_out = domainbed_holdout(len(train), seed, domain_index, config.holdout_fraction)
    return train[remaining], train[held_out]


def _too_small(dataset: ImageDataset, domain: str, config: DataConfig, train: Indices, out: Indices) -> DataError:
    images = len(dataset.rows_of(domain))
    if dataset.parts is not None and not len(train):
        return DataError(
            f"The source domain {shown(domain)} has no images to train on.",
            expected="images in train",
            found=f"{images:,} images, all in validation or test, or in groups with test images",
            next_step=f"hold the domain out (--held-out {shown(domain)}), or move images to train",
        )
    if dataset.groups is not None:
        count = len(np.unique(dataset.groups[dataset.rows_of(domain)]))
        return DataError(
            f"The source domain {shown(domain)} cannot be divided without dividing a group.",
            expected="groups that can be held out for validation, and others with all classes",
            found=f"{images:,} images in {count:,} group{'' if count == 1 else 's'}",
            next_step="add groups, state the split (--split), or drop --group",
        )
    return DataError(
        f"The source domain {shown(domain)} is too small.",
        expected=f"at least {int(np.ceil(1 / config.holdout_fraction))} images, to hold out "
        f"{config.holdout_fraction:.0%}",
        found=str(len(train) + len(out)),
        next_step="add images, or set data.holdout_fraction",
    )
