"""Baselines, one file each. They share loop, data, weight averaging and selection with VL2V-ADiP."""
