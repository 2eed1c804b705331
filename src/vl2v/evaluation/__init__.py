"""Predictions of a student, and accuracy and calibration by domain."""
