"""The offline task: drawings from icon packages, pretrained weights from packages."""
