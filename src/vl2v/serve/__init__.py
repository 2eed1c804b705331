"""Serve a student over HTTP: an API and a web page."""
