"""Baselines with the same loop, data, weight averaging and selection. One file each."""
