"""Benchmarks: a grid of runs with DomainBed's protocol, its tables and its plots."""
