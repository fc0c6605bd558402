"""Additions to the method that are not part of the paper."""
