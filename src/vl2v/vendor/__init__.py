"""The seller's side: a local teacher behind HTTP, sold by the query (extra: vendor)."""
