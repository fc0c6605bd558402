"""Tiles that cover an image, and what runs a model on them."""
