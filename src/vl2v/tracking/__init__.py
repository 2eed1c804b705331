"""Trackers in addition to `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow."""
