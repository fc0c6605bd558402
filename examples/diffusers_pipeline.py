"""FluxSRPipeline as what it is, a diffusers pipeline: batches, tensors, saving and loading.

    python examples/diffusers_pipeline.py PHOTOGRAPH FOLDER

FOLDER gets the pipeline (`fluxsr upscale --model FOLDER` takes it) and photo_x4.png. With FLUX.1-dev the first line is
fluxsr.load("black-forest-labs/FLUX.1-dev", adapter="path/or/hub-id"), and nothing else changes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

import fluxsr


def main(photograph: Path, folder: Path) -> None:
    pipe = fluxsr.load("bundled", device="cpu", dtype="fp32")
    print(f"T_L {pipe.adapter_config.t_l}, strength {pipe.adapter_config.strength}, {pipe.plan.line()}")

    image = Image.open(photograph).convert("RGB")
    hr = pipe(image, scale=4, color_fix="wavelet").images[0]

    half = torch.from_numpy(pipe(image, scale=2, output_type="np").images)  # (1,H,W,3), float32 in [0,1]
    print(f"x4 {hr.width}x{hr.height}, x2 {half.shape[2]}x{half.shape[1]}")

    pipe.save_pretrained(folder)
    again = fluxsr.load(folder, device="cpu", dtype="fp32")
    assert again(image, scale=4).images[0].tobytes() == hr.tobytes()
    hr.save(folder / "photo_x4.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
