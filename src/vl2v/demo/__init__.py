"""Demo: a dataset of drawings from icon packages, and a comparison of three methods on it."""
