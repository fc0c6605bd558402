"""Archives on a Ray cluster: ``fluxsr batch``. ray, pyarrow and fsspec are imported when the command runs."""
