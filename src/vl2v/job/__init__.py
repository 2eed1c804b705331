"""The main job from end to end: scan, quote, buy, train, evaluate, keep."""
