"""Metadata of image files: read, corrected for the upscaled image, and written back."""
