"""The demo: drawings from icon packages, and three methods compared on them."""
