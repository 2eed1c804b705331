"""Datasets of other tools as tables of images: one module for each kind, one line of `vl2v.sources.registry` each."""
