"""Vendors over HTTP: the client, retries, limits, keys and the URI of a model."""
