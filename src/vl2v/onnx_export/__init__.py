"""ONNX export, quantisation, and the checks of an exported file."""
