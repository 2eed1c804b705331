"""Readers of tables that list images, one module per format. `vl2v.data.table` turns their rows into a dataset."""
