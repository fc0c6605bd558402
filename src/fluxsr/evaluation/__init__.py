"""Measuring images: metrics, spectra, and tables from folders. Knows no model."""

from fluxsr.evaluation.benchmark import Report, markdown, score_folders, to_json

__all__ = ["Report", "markdown", "score_folders", "to_json"]
