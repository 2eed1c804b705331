"""What the client has: images by domain and class, how they are split, and their pixels."""
