"""Pretrained weights that teachers and students share."""
