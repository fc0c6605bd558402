"""Evaluate folders of images: metrics, spectra and tables. No model of this package is loaded."""

from fluxsr.evaluation.folder_scores import Report, score_folders
from fluxsr.evaluation.tables import markdown, table_of, to_json

__all__ = ["Report", "markdown", "score_folders", "table_of", "to_json"]
