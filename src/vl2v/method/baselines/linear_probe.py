"""Linear probe: cross-entropy trains a linear classifier on a frozen backbone.

It consists of the second stage alone, on cached features. Averaging, selection and resuming are therefore the same as
for every other method.
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
