"""Measuring images: metrics, spectra, and tables from folders. Knows no model."""

from fluxsr.evaluation.benchmark import Report, score_folders
from fluxsr.evaluation.tables import markdown, table_of, to_json

__all__ = ["Report", "markdown", "score_folders", "table_of", "to_json"]
