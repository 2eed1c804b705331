"""The method of the paper as plain functions: loss, Align, Distill, weight averaging."""
