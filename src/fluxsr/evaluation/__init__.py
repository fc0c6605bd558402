"""Evaluate images: metrics, spectra and tables of folders, without any model."""

from fluxsr.evaluation.benchmark import Report, score_folders
from fluxsr.evaluation.tables import markdown, table_of, to_json

__all__ = ["Report", "markdown", "score_folders", "table_of", "to_json"]
