"""One module per command: distil, evaluate, check a teacher, recalibrate, export, change classes."""
