"""From settings to a plan of a run: dataset, split, requirements and quote."""
