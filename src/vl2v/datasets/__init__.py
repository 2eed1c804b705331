"""The benchmarks of domain generalisation by name: facts, sources, download and verification."""
