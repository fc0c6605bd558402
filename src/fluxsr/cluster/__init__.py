"""``fluxsr batch``: upscale large archives on a Ray cluster. ray, pyarrow and fsspec are imported on first use."""
