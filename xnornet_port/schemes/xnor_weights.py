"""XNOR-Net's arithmetic of binary weights, a few filters at a time (util.lua, see binarization.py)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch

from xnornet_port.schemes.scheme import BinaryFilters

__all__ = ["binarize_into", "filter_scales", "mean_centre_and_clamp", "scale_gradient"]

# Filters are worked on a few at a time, so that the steps of one pass find them in the processor's cache.
_CHUNK_ELEMENTS = 1 << 17


def mean_centre_and_clamp(weight: torch.Tensor) -> None:
    """In place: w -= mean over input channels per kernel position, then to [-1, 1]."""
    mean = _mean_over_inputs(weight)
    for latent, part in zip(_chunks(weight), _chunks(mean, weight), strict=True):
        latent.sub_(part).clamp_(-1, 1)


def filter_scales(weight: torch.Tensor) -> torch.Tensor:
    """alpha (O) of latent weights (O, I, kH, kW), to the bit what `binarize_into` multiplies their signs by."""
    return torch.cat([_mean_magnitude(part.abs()) for part in _chunks(weight.detach())])


def _mean_over_inputs(weight: torch.Tensor) -> torch.Tensor:
    """Mean over the input channels, (O, 1, kH, kW).

    On the CPU in THTensor_(mean)'s order, for the sign of a weight next to its mean depends on the last bit: channel
    after channel in float, or in double where the channels lie side by side in memory (1x1 kernels).
    """
    n_inputs = weight.shape[1]
    if weight.device.type != "cpu":
        return weight.mean(dim=1, keepdim=True)
    if weight[0, 0].numel() == 1:
        return weight.sum(dim=1, keepdim=True, dtype=torch.float64).to(weight.dtype).div_(n_inputs)
    total = weight[:, 0].clone()
    for channel in range(1, n_inputs):
        total += weight[:, channel]
    return total.div_(n_inputs).unsqueeze(1)


def _mean_magnitude(magnitude: torch.Tensor) -> torch.Tensor:
    """alpha (O) of |W|: sums over kW, kH and I in double, each rounded to float, as norm(1, 4):sum(3):sum(2) in Lua."""
    total = magnitude
    for dimension in (3, 2, 1):
        total = total.sum(dim=dimension, dtype=torch.float64).to(magnitude.dtype)
    return total.div_(magnitude[0].numel())


def _chunks(tensor: torch.Tensor, like: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
    """The tensor a few filters at a time on the CPU, whole on a GPU; views, so that in-place work stays.

    As many filters at a time as of `like`, where the two are gone through together.
    """
    if tensor.device.type != "cpu":
        yield tensor
        return
    step = max(1, _CHUNK_ELEMENTS // max(1, (tensor if like is None else like)[0].numel()))
    bounds = [*range(0, tensor.shape[0], step), tensor.shape[0]]
    for start, end in pairwise(bounds):
        yield tensor[start:end]


def binarize_into(weight: torch.Tensor, binary: torch.Tensor) -> BinaryFilters:
    """Write alpha sign(weight) into `binary`.

    On a GPU the answer says that some |weight| >= 1: finding out would make the host wait for the device.
    """
    scales, largest = [], []
    for latent, target in zip(_chunks(weight), _chunks(binary), strict=True):
        magnitude = torch.abs(latent, out=target)
        alpha = _mean_magnitude(magnitude)
        largest.append(magnitude.amax())
        torch.sign(latent, out=target).mul_(alpha.view(-1, 1, 1, 1))
        scales.append(alpha)
    return BinaryFilters(torch.cat(scales), weight.device.type != "cpu" or bool(torch.stack(largest).amax() >= 1))


def scale_gradient(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    filters: BinaryFilters,
    times_n: bool,
    factor: float,
) -> None:
    """Turn, in place, the gradient by the binary weights into that by the latent ones; see `Xnor.scale_gradient`."""
    alpha = filters.alpha
    n, n_inputs = weight[0].numel(), weight.shape[1]
    inside, outside = (
        m.add(1 / n).mul_(1 - 1 / n_inputs).mul_(n if times_n else 1)
        for m in (alpha.view(-1, 1, 1, 1), torch.zeros_like(alpha).view(-1, 1, 1, 1))
    )
    start = 0
    for latent, part in zip(_chunks(weight), _chunks(gradient), strict=True):
        place = slice(start, start + latent.shape[0])
        if filters.any_saturated:
            part.mul_(torch.where(latent.abs() >= 1, outside[place], inside[place]))
        else:
            part.mul_(inside[place])
        if factor != 1:
            part.mul_(factor)
        start = place.stop
