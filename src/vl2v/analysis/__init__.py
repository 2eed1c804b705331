"""Analyses of labels, purchased embeddings, and features of the frozen student."""
