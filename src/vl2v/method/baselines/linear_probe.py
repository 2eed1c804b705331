"""A linear probe: cross-entropy on the labels trains a linear classifier, and the backbone stands still throughout.

The whole training is the second stage on kept features, so that averaging, selection and resuming are those of every
other method; a first stage before it would only be more of the same.
"""

from __future__ import annotations

from dataclasses import replace

from vl2v.method.baselines.erm import ERM

LINEAR_PROBE = replace(
    ERM,
    name="linear-probe",
    title="linear probe",
    stages=("", "linear probe"),
    forbids_first_stage=True,
    trains_backbone=False,
)
