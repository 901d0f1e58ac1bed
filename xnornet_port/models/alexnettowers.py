"""AlexNet of 2012 as two towers side by side (soumith/imagenet-multiGPU.torch models/alexnet.lua).

There its name is alexnet, which in XNOR-Net is the network with batch normalisation of alexnet.py.
"""

from __future__ import annotations

from torch import nn

from lua_compat.nn import Dropout, LogSoftMax, View
from lua_compat.nn.containers import Concat
from xnornet_port.layers import linear, max_pooling
from xnornet_port.models.multigpu_layers import convolution_relu, threshold, whole_network
from xnornet_port.models.settings import NetworkSettings

__all__ = ["alexnettowers"]


def alexnettowers(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; parameters are not initialised."""
    classifier = nn.Sequential(
        View((256 * 6 * 6,)),
        Dropout(settings.dropout),
        linear(256 * 6 * 6, 4096),
        threshold(),
        Dropout(settings.dropout),
        linear(4096, 4096),
        threshold(),
        linear(4096, settings.n_classes),
        LogSoftMax(),
    )
    return whole_network(Concat([_tower(), _tower()], dimension=2), classifier)


def _tower() -> nn.Sequential:
    return nn.Sequential(
        *convolution_relu(3, 48, 11, stride=4, padding=2),  # 224 -> 55
        max_pooling(3, 2),  #  55 -> 27
        *convolution_relu(48, 128, 5, padding=2),
        max_pooling(3, 2),  #  27 -> 13
        *convolution_relu(128, 192, 3, padding=1),
        *convolution_relu(192, 192, 3, padding=1),
        *convolution_relu(192, 128, 3, padding=1),
        max_pooling(3, 2),  #  13 -> 6
    )
