"""Pixels only, no model: reading and writing files, resizing, tiles, colour."""
