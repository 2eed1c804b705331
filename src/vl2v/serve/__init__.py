"""The student behind HTTP: an API, and one page."""
