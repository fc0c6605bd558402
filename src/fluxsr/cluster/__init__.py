"""Large archives on a Ray cluster: ``fluxsr batch``. ray, pyarrow and fsspec are imported once the command runs."""
