"""The vendor server: a local teacher behind HTTP that bills per query (extra: vendor)."""
