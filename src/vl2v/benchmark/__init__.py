"""The benchmark: a grid of runs by DomainBed's protocol, its table, and the curves."""
