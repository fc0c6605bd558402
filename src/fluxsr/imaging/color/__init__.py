"""Colour profiles, colour fixes and transparency."""
