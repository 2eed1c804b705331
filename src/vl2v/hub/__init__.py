"""A finished run for others: a model card, and the hub it goes to."""
