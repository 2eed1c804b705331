"""Readers of tables that list images, one module for each format; `vl2v.task.table` makes a data set of their rows."""
