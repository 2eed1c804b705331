"""Where a run is followed beside `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow."""
