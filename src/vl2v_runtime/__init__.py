"""The deployed student: what a device needs to classify images, without torch."""
