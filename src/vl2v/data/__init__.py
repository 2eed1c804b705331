"""The dataset: images by domain and class, their splits, and their pixels."""
