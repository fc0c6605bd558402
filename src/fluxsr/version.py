"""The version, written here alone: pyproject.toml (hatch), the package and the model cards take it from here."""

__version__ = "0.1.0"
