"""Binary weights: W is approximated by alpha sign(W) (XNOR-Net paper, section 3.1), as each layer's scheme has it.

The real-valued weights that training updates are the latent weights. Origin: util.lua meancenterConvParms,
clampConvParms, binarizeConvParms, updateBinaryGradWeight, whose arithmetic is `schemes.xnor`'s. The first and the last
convolution are never binarised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from xnornet_port.schemes import REAL, scheme_name, scheme_of
from xnornet_port.schemes.scheme import BinaryFilters

__all__ = ["Binarizer", "binary_convolutions", "has_binary_weights", "has_mean_centred_weights"]


class Binarizer:
    """The binary convolutions of a network, and what training and testing do to their weights.

    binarizer = Binarizer(network)
    binarizer.mean_centre_and_clamp()
    with binarizer.binary_weights():
        loss.backward()
    binarizer.scale_gradients(times_n=True)
    """

    def __init__(self, network: nn.Module):
        self.convolutions = binary_convolutions(network)
        self._schemes = [scheme_of(convolution) for convolution in self.convolutions]
        self._filters: list[BinaryFilters] = []  # of the weights last binarised
        self._binary: list[torch.Tensor] = []  # reused from batch to batch

    def mean_centre_and_clamp(self) -> None:
        """Training's preparation, which stays: with XNOR-Net's scheme just this, see `Scheme.prepare`."""
        with torch.no_grad():
            for convolution, scheme in zip(self.convolutions, self._schemes, strict=True):
                scheme.prepare(convolution.weight)

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
        """Turn gradients by the binary weights into those by the latent ones, see `Scheme.scale_gradient`.

        Times n, the size of a filter, for sgd (`times_n`), and times `factor` (adam's 1e9). Call it after
        `binary_weights` of the same weights. Convolutions without a gradient are passed over.
        """
        with torch.no_grad():
            for convolution, scheme, filters in zip(self.convolutions, self._schemes, self._filters, strict=True):
                weight = convolution.weight
                if weight.grad is not None:
                    scheme.scale_gradient(weight, weight.grad, filters, times_n, factor)

    def _binarize(self, latent: Sequence[torch.Tensor]) -> None:
        if (
            any(
                binary.shape != weight.shape or binary.device != weight.device
                for binary, weight in zip(self._binary, latent, strict=False)
            )
            or not self._binary
        ):
            self._binary = [torch.empty_like(weight) for weight in latent]
        with torch.no_grad():
            self._filters = [
                scheme.binarize(weight, binary)
                for scheme, weight, binary in zip(self._schemes, latent, self._binary, strict=True)
            ]


def binary_convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """All 2-d convolutions but the first and the last, in the network's order, and but those a scheme keeps real."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [convolution for convolution in convolutions[1:-1] if scheme_name(convolution) != REAL]


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


def _is_binary(weight: torch.Tensor) -> bool:
    magnitude = weight.abs().flatten(1)
    largest = magnitude.amax(dim=1, keepdim=True)
    return bool(((magnitude - largest).abs() <= 1e-5 * largest).logical_or(magnitude == 0).all())


def _is_centred(weight: torch.Tensor) -> bool:
    expected_if_not = weight.abs().mean() / weight.shape[1] ** 0.5
    return bool(weight.mean(dim=1).abs().mean() < expected_if_not / 3)
