"""The client's own model: backbone, projection and text head."""
