"""The run folder: its files, its owner, and the paths recorded in it."""
