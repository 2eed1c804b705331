"""Linear probe: cross-entropy trains a linear classifier on a frozen backbone.

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
