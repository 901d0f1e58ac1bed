"""Network in Network with batch normalisation (soumith/imagenet-multiGPU.torch models/ninbn.lua)."""

from __future__ import annotations

from torch import nn

from lua_compat.nn import LogSoftMax, View
from xnornet_port.layers import linear, max_pooling
from xnornet_port.models.multigpu_layers import average_pooling, normalized_convolution, whole_network
from xnornet_port.models.settings import NetworkSettings

__all__ = ["ninbn"]


def ninbn(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; parameters are not initialised."""
    features = nn.Sequential(
        *_block(3, 96, 11, stride=4, padding=5),  # 224 -> 56
        max_pooling(3, 2, padding=1),  #  56 -> 28
        *_block(96, 256, 5, padding=2),
        max_pooling(3, 2, padding=1),  #  28 -> 14
        *_block(256, 384, 3, padding=1),
        max_pooling(3, 2, padding=1),  #  14 -> 7
        *_block(384, 1024, 3, padding=1),
        average_pooling(7),
        View((-1,), n_input_dims=3),
    )
    return whole_network(features, linear(1024, settings.n_classes), LogSoftMax())


def _block(n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    """A convolution and two of 1x1, each normalised."""
    return [
        *normalized_convolution(n_inputs, n_outputs, kernel, True, stride, padding),
        *normalized_convolution(n_outputs, n_outputs, 1, True),
        *normalized_convolution(n_outputs, n_outputs, 1, True),
    ]
