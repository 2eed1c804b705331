"""Shared by the vendor server and the student server."""
