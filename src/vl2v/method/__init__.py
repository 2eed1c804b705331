"""The paper's method as plain functions: loss, Align, Distill, weight averaging."""
