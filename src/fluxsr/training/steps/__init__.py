"""Stages of the training loop, one module each, with their trained modules and losses."""
