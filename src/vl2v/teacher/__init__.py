"""Teachers, and purchases from them."""
