"""Calibration, rejection and drift detection, fitted on validation images of the source domains."""
