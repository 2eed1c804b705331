"""What labels, purchased embeddings and features of the frozen student say about teacher and data."""
