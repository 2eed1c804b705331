"""The student: backbone, projection and head."""
