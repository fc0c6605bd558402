"""Servers: the HTTP API and the web page."""
