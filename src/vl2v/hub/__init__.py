"""Publish a finished run: a model card, and upload to the Hugging Face hub."""
