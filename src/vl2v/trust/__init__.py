"""Fitting how far a student can be trusted, on validation images of the source domains alone."""
