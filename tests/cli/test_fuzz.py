"""The whole corpus of damaged files through the command line: an output or one line for each."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from fluxsr.processing.resume import NAME

STUB = Path(__file__).parents[1] / "stub_pipeline.py"
LINE = re.compile(r"(error|note|failed|model|plan): |\d+/\d+ .*: \d+\.\d s|\d+ upscaled, \d+ failed$")


def test_every_file_gives_an_output_or_one_line(corpus: Path, tmp_path: Path) -> None:
    files = [path for path in corpus.iterdir() if path.is_file()]
    done = subprocess.run(
        [sys.executable, str(STUB), "upscale", *map(str, files), "-o", str(tmp_path), "--scale", "1"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr[-2000:]
    lines = done.stderr.splitlines()
    assert not [line for line in lines if not LINE.match(line)], "no trace, and no chatter of libraries"
    outputs = [path for path in tmp_path.iterdir() if path.name != NAME]
    refused = [line for line in lines if line.startswith("error: ")]
    assert len(outputs) > 50 and len(refused) > 100 and len(outputs) + len(refused) == len(files)
    for path in outputs:
        assert not path.name.startswith("."), "unfinished"
        with Image.open(path) as image:
            image.load()
    print(f"{len(files)} files: {len(outputs)} outputs, {len(refused)} refused in one line, 0 anything else")
