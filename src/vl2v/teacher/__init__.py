"""What the client may ask: teachers, and what was bought from them."""
