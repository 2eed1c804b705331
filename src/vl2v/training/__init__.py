"""The two training stages of a run, and the data and feature caches from which they read."""
