"""``python -m fluxsr`` is ``fluxsr``."""

from __future__ import annotations

from fluxsr.cli.main import main

if __name__ == "__main__":
    main()
