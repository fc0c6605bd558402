"""In which number format should a pair be stored? The error of each against float32, and bytes per 1024x1024 pair.

    python benchmarks/pair_dtypes.py --base bundled --photos examples

``latent``: root mean square error relative to z_0; ``pixels``: the same of the decoded image, in grey levels (0..255).
``way``: how far rounding eps alone moves the end of the way down (8 steps of Heun), relative to the latent.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from fluxsr.backbone import latents
from fluxsr.backbone.loading import load_autoencoder
from fluxsr.imaging.photographs import read_photographs, whole_tokens
from fluxsr.keyed import keyed_noise
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.teacher import load_teacher

FLUX_VALUES = 16 * 128 * 128  # of a latent of FLUX's at 1024x1024


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="bundled")
    parser.add_argument("--photos", nargs="+", required=True)
    parser.add_argument("--count", type=int, default=4)
    options = parser.parse_args()
    vae = load_autoencoder(options.base, torch.device("cpu"))
    photos = [whole_tokens(photo)[None].float() / 255 for photo in read_photographs(options.photos, options.count)[1]]
    clean = [latents.encode(vae, photo) for photo in photos]
    side = min(min(z.shape[-2:]) for z in clean) // 2 * 2
    config = PairsConfig(base=options.base, precision="fp32", window=min(32, side))
    teacher = load_teacher(config, [""], torch.device("cpu"), None)
    z = torch.cat([z[..., : config.window, : config.window] for z in clean])
    eps = torch.stack([keyed_noise(z.shape[1:], k) for k in range(len(z))]).float() + 1e-4 * z  # in no format's grid
    end = teacher.sample(eps, [""] * len(z))
    print("| format | bytes of z_0 | latent | pixels | way |\n|---|---|---|---|---|")
    for name in ("float32", "float16", "bfloat16", "float8_e4m3fn"):
        dtype = getattr(torch, name)
        cast = [x.to(dtype).float() for x in clean]
        latent = sum(rms(a - b) / rms(b) for a, b in zip(cast, clean, strict=True)) / len(clean)
        pixels = [rms(latents.decode(vae, a) - latents.decode(vae, b)) for a, b in zip(cast, clean, strict=True)]
        way = rms(teacher.sample(eps.to(dtype).float(), [""] * len(z)) - end) / rms(end)
        size = FLUX_VALUES * dtype.itemsize
        print(f"| {name} | {size:,} | {latent:.1e} | {255 * sum(pixels) / len(pixels):.3f} | {way:.1e} |", flush=True)


if __name__ == "__main__":
    main()
