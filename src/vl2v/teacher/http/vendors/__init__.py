"""One thin adapter per vendor: how a request is written, an answer read, an error judged and a price worked out."""
