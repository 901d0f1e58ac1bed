"""What the weights of a run look like: first filters, distributions, and how many signs change from epoch to epoch."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from cache_tools.network_profile import torch7_path
from xnornet_port.binarization import binary_convolutions

__all__ = ["Flips", "LayerWeights", "filter_picture", "layer_weights", "sign_flips"]

MOST_FILTERS = 256
ZOOM = 3
BINS = 41
ALPHA_BINS = 30


class LayerWeights(NamedTuple):
    """A binary layer's latent weights and factors: name, shape, histograms over -limit..limit and 0..alpha_limit.

    Histograms, limits and means are of the finite numbers.
    """

    name: str
    shape: tuple[int, ...]
    counts: list[int]
    limit: float
    mean_magnitude: float
    at_limit: float
    """Share of weights at -1 or 1 and beyond, whose gradient is cut."""
    alpha_counts: list[int]
    alpha_limit: float
    not_finite: int
    """Weights that are nan or infinite: training has diverged."""


class Flips(NamedTuple):
    """Per binary layer the share of signs, in per cent, that an epoch changed; epochs[0] has none before it."""

    epochs: list[int]
    layers: dict[str, list[float]]


def binary_layers_by_name(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Torch7's path of each binary convolution."""
    names = {id(module): torch7_path(path) for path, module in network.named_modules()}
    return {names[id(layer)]: layer for layer in binary_convolutions(network)}


def layer_weights(network: nn.Module) -> list[LayerWeights]:
    """Of every binary layer, in the network's order."""
    return [_layer_weights(name, layer.weight.detach()) for name, layer in binary_layers_by_name(network).items()]


def _layer_weights(name: str, weight: torch.Tensor) -> LayerWeights:
    flat, alpha = _finite(weight), _finite(weight.abs().flatten(1).mean(dim=1))
    limit, alpha_limit = (float(numbers.abs().amax()) if len(numbers) else 0.0 for numbers in (flat, alpha))
    return LayerWeights(
        name=name,
        shape=tuple(weight.shape),
        counts=[int(count) for count in torch.histc(flat, BINS, -(limit or 1.0), limit or 1.0)],
        limit=limit or 1.0,
        mean_magnitude=float(flat.abs().mean()),
        at_limit=float((flat.abs() >= 1).float().mean()),
        alpha_counts=[int(count) for count in torch.histc(alpha, ALPHA_BINS, 0, alpha_limit or 1.0)],
        alpha_limit=alpha_limit or 1.0,
        not_finite=weight.numel() - len(flat),
    )


def _finite(numbers: torch.Tensor) -> torch.Tensor:
    """Those of them that are, in double precision: no float32's mean or range overflows there."""
    flat = numbers.flatten().double()
    return flat[flat.isfinite()]


def sign_flips(networks: Iterable[tuple[int, nn.Module]]) -> Flips:
    """Compare each (epoch, network) with the one before; only the signs of one network are kept in memory."""
    epochs: list[int] = []
    layers: dict[str, list[float]] = {}
    before: dict[str, npt.NDArray[np.uint8]] = {}
    for epoch, network in networks:
        epochs.append(epoch)
        now = {
            name: np.packbits(layer.weight.detach().numpy() > 0)
            for name, layer in binary_layers_by_name(network).items()
        }
        sizes = {name: layer.weight.numel() for name, layer in binary_layers_by_name(network).items()}
        for name, signs in now.items():
            earlier = before.get(name)
            comparable = earlier is not None and earlier.shape == signs.shape
            changed = int(np.bitwise_count(earlier ^ signs).sum()) if comparable and earlier is not None else math.nan
            layers.setdefault(name, [math.nan] * (len(epochs) - 1)).append(100 * changed / sizes[name])
        before = now
    return Flips(epochs, layers)


def filter_picture(network: nn.Module) -> tuple[bytes, str] | None:
    """The first convolution's filters side by side as a PNG, each from its least to its largest weight, and a caption.

    In colour where they take red, green and blue, else their mean over channels in gray. None without a convolution.
    """
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or min(first.kernel_size) < 2:
        return None
    weight = first.weight.detach().float()[:MOST_FILTERS].nan_to_num(0.0, 0.0, 0.0)
    shown = weight if weight.shape[1] == 3 else weight.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    low, high = shown.flatten(1).amin(1), shown.flatten(1).amax(1)
    scaled = (shown - low.view(-1, 1, 1, 1)) / (high - low).clamp_min(1e-12).view(-1, 1, 1, 1)
    pixels = (scaled * 255).round().byte().permute(0, 2, 3, 1).numpy()
    output = io.BytesIO()
    _tiled(pixels).save(output, "PNG", optimize=True)
    height, width = first.kernel_size
    return output.getvalue(), f"{len(pixels)} of {first.out_channels} filters, {width} x {height} pixels each"


def _tiled(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """(n, height, width, 3) as rows of tiles, transparent between them, enlarged."""
    count, height, width, _ = pixels.shape
    columns = math.ceil(math.sqrt(2 * count))
    rows = math.ceil(count / columns)
    sheet = Image.new("RGBA", (columns * (width + 1) - 1, rows * (height + 1) - 1))
    for number, tile in enumerate(pixels):
        sheet.paste(Image.fromarray(tile), (number % columns * (width + 1), number // columns * (height + 1)))
    return sheet.resize((sheet.width * ZOOM, sheet.height * ZOOM), Image.Resampling.NEAREST)
