"""Readers of tables that list images, one module for each format; `vl2v.data.table` makes a dataset of their rows."""
