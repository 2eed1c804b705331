"""One run from end to end: scan, quote, buy, train, evaluate, save."""
