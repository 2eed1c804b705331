"""The run folder: its files, its owner, and the paths that it remembers."""
