"""Fit trust data on validation images of the source domains."""
