"""Binary weights: W is approximated by alpha sign(W), alpha = mean |W| per filter (XNOR-Net paper, section 3.1).

The real-valued weights that training updates are the latent weights. Origin: util.lua meancenterConvParms,
clampConvParms, binarizeConvParms, updateBinaryGradWeight. The first and the last convolution are never binarised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn

__all__ = ["Binarizer", "binary_convolutions", "filter_scales", "has_binary_weights", "has_mean_centred_weights"]

# Filters are worked on a few at a time, so that the steps of one pass find them in the processor's cache.
_CHUNK_ELEMENTS = 1 << 17


class Binarizer:
    """The binary convolutions of a network, and what training and testing do to their weights.

    binarizer = Binarizer(network)
    binarizer.mean_centre_and_clamp()
    with binarizer.binary_weights():
        loss.backward()
    binarizer.scale_gradients(per_element=True)
    """

    def __init__(self, network: nn.Module):
        self.convolutions = binary_convolutions(network)
        self._scales: list[torch.Tensor] = []  # alpha per filter, (O), of the weights last binarised
        self._saturated: list[bool] = []  # whether any |w| >= 1 then
        self._binary: list[torch.Tensor] = []  # reused from batch to batch

    def mean_centre_and_clamp(self) -> None:
        """Training's preparation, which stays: w -= mean over input channels per kernel position, then to [-1, 1]."""
        with torch.no_grad():
            for convolution in self.convolutions:
                mean = _mean_over_inputs(convolution.weight)
                for weight, part in zip(_chunks(convolution.weight), _chunks(mean, convolution.weight), strict=True):
                    weight.sub_(part).clamp_(-1, 1)

    @contextmanager
    def binary_weights(self) -> Iterator[None]:
        """Inside, each binary convolution's weight is alpha sign(w); after it, in any case, the latent weights again.

        Do not save the network inside. Gradients go to the same parameters.
        """
        latent = [convolution.weight.data for convolution in self.convolutions]
        self._binarize(latent)
        try:
            for convolution, binary in zip(self.convolutions, self._binary, strict=True):
                convolution.weight.data = binary
            yield
        finally:
            for convolution, weight in zip(self.convolutions, latent, strict=True):
                convolution.weight.data = weight

    def binarize(self) -> None:
        """Replace the latent weights by the binary ones for good (for export)."""
        latent = [convolution.weight.data for convolution in self.convolutions]
        self._binarize(latent)
        for weight, binary in zip(latent, self._binary, strict=True):
            weight.copy_(binary)

    def scale_gradients(self, times_n: bool, factor: float = 1.0) -> None:
        """Turn gradients by the binary weights into those by the latent ones (from the paper's equation 12).

        Per element, m = (alpha [|w| < 1] + 1/n) (1 - 1/I) with n the size of a filter and I its input channels; then
        times n for sgd (`times_n`), and times `factor` (adam's 1e9). Call it after `binary_weights` of the same
        weights. Convolutions without a gradient are passed over.
        """
        with torch.no_grad():
            for convolution, alpha, saturated in zip(self.convolutions, self._scales, self._saturated, strict=True):
                if convolution.weight.grad is not None:
                    _scale_gradient(convolution.weight, convolution.weight.grad, alpha, saturated, times_n, factor)

    def _binarize(self, latent: Sequence[torch.Tensor]) -> None:
        if (
            any(
                binary.shape != weight.shape or binary.device != weight.device
                for binary, weight in zip(self._binary, latent, strict=False)
            )
            or not self._binary
        ):
            self._binary = [torch.empty_like(weight) for weight in latent]
        statistics = [_binarize_into(weight, binary) for weight, binary in zip(latent, self._binary, strict=True)]
        self._scales = [alpha for alpha, _ in statistics]
        self._saturated = [saturated for _, saturated in statistics]


def binary_convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """All 2-d convolutions but the first and the last, in the network's order."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return convolutions[1:-1]


def filter_scales(weight: torch.Tensor) -> torch.Tensor:
    """alpha (O) of latent weights (O, I, kH, kW), to the bit what `Binarizer` multiplies their signs by."""
    return torch.cat([_mean_magnitude(part.abs()) for part in _chunks(weight.detach())])


def has_binary_weights(network: nn.Module) -> bool:
    """Whether every binary convolution already holds alpha sign(W): one absolute value (or 0) in each filter."""
    return all(_is_binary(convolution.weight.detach()) for convolution in binary_convolutions(network))


def has_mean_centred_weights(network: nn.Module) -> bool:
    """Whether the latent weights are centred over their input channels, the mark of training with -binaryWeight.

    The means of I unrelated weights are about 1/sqrt(I) of their size; centred ones keep only the last update's trace.
    Judged with a third of that, on the average of all positions.
    """
    convolutions = [c for c in binary_convolutions(network) if c.weight.shape[1] > 1]
    return bool(convolutions) and all(_is_centred(convolution.weight.detach()) for convolution in convolutions)


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


def _binarize_into(weight: torch.Tensor, binary: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Write alpha sign(weight) into `binary`; return alpha (O) and whether any |weight| >= 1.

    On a GPU the second answer is always yes: finding out would make the host wait for the device.
    """
    scales, largest = [], []
    for latent, target in zip(_chunks(weight), _chunks(binary), strict=True):
        magnitude = torch.abs(latent, out=target)
        alpha = _mean_magnitude(magnitude)
        largest.append(magnitude.amax())
        torch.sign(latent, out=target).mul_(alpha.view(-1, 1, 1, 1))
        scales.append(alpha)
    return torch.cat(scales), weight.device.type != "cpu" or bool(torch.stack(largest).amax() >= 1)


def _scale_gradient(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    alpha: torch.Tensor,
    saturated: bool,
    times_n: bool,
    factor: float,
) -> None:
    n, n_inputs = weight[0].numel(), weight.shape[1]
    inside, outside = (
        m.add(1 / n).mul_(1 - 1 / n_inputs).mul_(n if times_n else 1)
        for m in (alpha.view(-1, 1, 1, 1), torch.zeros_like(alpha).view(-1, 1, 1, 1))
    )
    start = 0
    for latent, part in zip(_chunks(weight), _chunks(gradient), strict=True):
        filters = slice(start, start + latent.shape[0])
        if saturated:
            part.mul_(torch.where(latent.abs() >= 1, outside[filters], inside[filters]))
        else:
            part.mul_(inside[filters])
        if factor != 1:
            part.mul_(factor)
        start = filters.stop


def _is_binary(weight: torch.Tensor) -> bool:
    magnitude = weight.abs().flatten(1)
    largest = magnitude.amax(dim=1, keepdim=True)
    return bool(((magnitude - largest).abs() <= 1e-5 * largest).logical_or(magnitude == 0).all())


def _is_centred(weight: torch.Tensor) -> bool:
    expected_if_not = weight.abs().mean() / weight.shape[1] ** 0.5
    return bool(weight.mean(dim=1).abs().mean() < expected_if_not / 3)
