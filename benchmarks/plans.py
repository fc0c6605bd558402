"""Is quality kept? Pictures of every plan against float32 and against bfloat16, from the same input.

    python benchmarks/plans.py [--device cpu] [--image PICTURE] [--json plans.json]

Two models: the bundled one, and a random FLUX of six blocks, embedded guidance and width 512 with the bundled
autoencoder. Plans whose package is not installed are left out with a line. Compiled code and nf4, which the loader
keeps for GPUs, are had on a CPU here all the same, with a C++ compiler and bitsandbytes 0.50. PSNR in dB; the worst
pixel is the largest difference of a channel, of 255. A control says what leaving out the whole step would cost.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from fluxsr.backbone.adapter import AdapterConfig
from fluxsr.backbone.loading import Backbone, load, save_base
from fluxsr.backbone.places import folder_of
from fluxsr.backbone.quantize import nf4_in_place
from fluxsr.errors import InputError, needed
from fluxsr.imaging import inputs, io
from fluxsr.pipeline import FluxSRPipeline

EXAMPLES = Path(__file__).parents[1] / "examples"
# name -> arguments of `loaded`
PLANS: dict[str, dict[str, Any]] = {
    "fp32, unfolded": {"dtype": "fp32", "folded": False},
    "fp32": {"dtype": "fp32"},
    "bf16, unfolded": {"dtype": "bf16", "folded": False},
    "bf16": {"dtype": "bf16"},
    "bf16, offloaded": {"dtype": "bf16", "offload": True},
    "bf16, compiled": {"dtype": "bf16", "compiled": True},
    "int8 weights, bf16": {"dtype": "bf16", "quantize": "int8"},
    "fp8 weights, bf16": {"dtype": "bf16", "quantize": "fp8"},
    "nf4 weights, bf16": {"dtype": "bf16", "quantize": "nf4"},
    "weights as of GGUF Q8_0, bf16": {"dtype": "bf16", "gguf": "Q8_0"},
    "weights as of GGUF Q4_0, bf16": {"dtype": "bf16", "gguf": "Q4_0"},
}
FLOAT32, BFLOAT16 = "fp32, unfolded", "bf16"  # what all are measured against


@dataclass
class Row:
    model: str
    plan: str
    megabytes: float  # of the transformer's weights, as saved; 0 where nothing is
    psnr: float | None  # against float32; None where nothing differs
    worst: float
    psnr_bf16: float | None
    worst_bf16: float


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--image", type=Path, help="default: the first of examples/")
    parser.add_argument("--side", type=int, default=128, help="of the input, cut from the middle (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the measurements here too")
    return parser.parse_args(arguments)


def loaded(model: str | Path, device: str, quantize: str = "none", gguf: str = "", **options: Any) -> Backbone:
    """What ``load`` gives; in nf4 on a CPU, or with the values that a GGUF file would hold, too.

    Raises:
        InputError: a package that is not installed.
    """
    on_cpu = quantize == "nf4" and device == "cpu"
    parts = load(model, device=device, quantize="none" if on_cpu else quantize, **options)
    if on_cpu:
        needed("nf4", "nf4", "bitsandbytes")
        nf4_in_place(parts.transformer, parts.transformer.dtype)
    if gguf:
        round_as_gguf(parts.transformer, gguf)
    return parts


def round_as_gguf(transformer: Any, kind: str) -> None:
    """The linears' weights as they come out of a GGUF file of that kind, in place: products see no more of it."""
    needed("GGUF", "gguf", "gguf")
    from gguf import GGMLQuantizationType, quants

    form = GGMLQuantizationType[kind]
    for module in transformer.modules():
        if isinstance(module, torch.nn.Linear):
            small = quants.quantize(module.weight.detach().float().cpu().numpy(), form)
            module.weight.data.copy_(torch.from_numpy(quants.dequantize(small, form)))


def random_model(folder: Path) -> None:
    """A random FLUX of the real class, with FLUX's head size and guidance, in a folder that ``load`` takes."""
    bundled = load("bundled", device="cpu", dtype="fp32", folded=False)
    config = bundled.transformer.config
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=config.in_channels,
        num_layers=2,
        num_single_layers=4,
        num_attention_heads=4,
        joint_attention_dim=config.joint_attention_dim,
        pooled_projection_dim=config.pooled_projection_dim,
        guidance_embeds=True,
    )
    settings = AdapterConfig(t_l=0.25, strength=1.0, guidance=3.5)
    save_base(Backbone(transformer, bundled.vae, bundled.prompt, settings), folder)


def picture(parts: Backbone, image: Tensor, strength: float | None = None) -> Tensor:
    """(3,H,W), float32 in [0,1], of an image (1,3,h,w); no colour fix, which would hide errors."""
    pipe = FluxSRPipeline(parts.transformer, parts.vae, parts.prompt, parts.config, parts.name)
    return pipe(image, 4, strength=strength, color_fix="none", output_type="pt").images[0]


def megabytes(transformer: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        transformer.save_pretrained(folder)
        return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors")) / 1e6


def difference(one: Tensor, other: Tensor) -> tuple[float | None, float]:
    """PSNR in dB (None for equal pictures) and the largest difference, of 255."""
    error = (one.clamp(0, 1) - other.clamp(0, 1)).double()
    square = float(error.square().mean())
    return (None if square == 0 else -10 * torch.log10(torch.tensor(square)).item()), 255 * float(error.abs().max())


def measure(name: str, model: str | Path, image: Tensor, device: str) -> list[Row]:
    pictures: dict[str, tuple[Tensor, float]] = {}
    for plan, options in PLANS.items():
        try:
            parts = loaded(model, device, **options)
        except InputError as error:
            print(f"left out: {plan}: {error}", file=sys.stderr)
            continue
        pictures[plan] = picture(parts, image), 0.0 if "gguf" in options else megabytes(parts.transformer)
        if plan == FLOAT32:
            control = picture(parts, image, strength=0), 0.0
        print(f"{name}, {plan}: done", file=sys.stderr)
    pictures["control: no step"] = control
    return [
        Row(name, plan, size, *difference(made, pictures[FLOAT32][0]), *difference(made, pictures[BFLOAT16][0]))
        for plan, (made, size) in pictures.items()
    ]


def table(rows: list[Row]) -> str:
    def shown(value: float | None, nothing: str = "equal") -> str:
        return nothing if value is None else f"{value:.1f}"

    lines = [
        "| model | plan | weights MB | PSNR, fp32 | worst pixel, fp32 | PSNR, bf16 | worst pixel, bf16 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.model} | {row.plan} | {shown(row.megabytes or None, '-')} | {shown(row.psnr)} | {row.worst:.2f} "
        f"| {shown(row.psnr_bf16)} | {row.worst_bf16:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    source = options.image or sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".jpg", ".png"))[0]
    image = inputs.tensors(io.read(source).image)[0]  # (1,3,h,w)
    top, left = ((length - options.side) // 2 for length in image.shape[-2:])
    image = image[..., top : top + options.side, left : left + options.side]
    with tempfile.TemporaryDirectory() as folder:
        random_model(Path(folder))
        models = {"bundled": folder_of("bundled"), "random": Path(folder)}
        rows = [row for name, model in models.items() for row in measure(name, model, image, options.device)]
    where = f"{options.device}, torch {torch.__version__}, {platform.machine()}"
    print(f"{source.name}, {options.side} px enlarged x4, {where}")
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
