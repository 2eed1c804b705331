"""The teacher that comes with vl2v and needs no network."""
