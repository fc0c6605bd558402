"""``python -m fluxsr`` is ``fluxsr``."""

from __future__ import annotations

from fluxsr.apps.cli import main

if __name__ == "__main__":
    main()
