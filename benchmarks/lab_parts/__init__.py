"""The parts of `benchmarks/lab.py`, the experiment bench."""
