"""Every picture of a folder, upscaled with its colours, transparency and metadata kept; a bad file is one line.

    python examples/upscale_folder.py FOLDER OUT [SCALE]

`fluxsr upscale FOLDER -o OUT` does this and more (resuming, reading ahead, pictures larger than the memory); these are
the parts it is made of.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fluxsr
from fluxsr.errors import FluxSRError
from fluxsr.imaging.formats import ENDINGS
from fluxsr.imaging.io import read, write_enlarged
from fluxsr.options import UpscaleOptions


def main(folder: Path, out: Path, scale: float = 4) -> int:
    """How many files failed."""
    pipe, failed = fluxsr.load("bundled"), 0
    for path in sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in ENDINGS):
        try:
            picture = read(path)
            hr = pipe(picture.lr, scale, output_type="pt").images  # (1,3,H,W)
            for note in write_enlarged(picture, [hr], (hr.shape[-2], hr.shape[-1]), out / path.name, UpscaleOptions()):
                print(f"note: {path}: {note}", file=sys.stderr)
        except FluxSRError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
        else:
            print(out / path.name)
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:4]))))
