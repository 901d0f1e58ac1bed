"""AlexNet with binary inputs and weights: the XNOR-Network (models/alexnetxnor.lua)."""

from __future__ import annotations

from torch import nn

from lua_compat.nn import LogSoftMax, View
from xnornet_port.layers import batch_normalization, convolution, max_pooling, relu
from xnornet_port.models.settings import NetworkSettings

__all__ = ["alexnetxnor"]


def alexnetxnor(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; parameters are not initialised.

    -dropout has no effect: the network has none, as in the original.
    """
    block = settings.binary.block
    return nn.Sequential(
        convolution(3, 96, 11, stride=4, padding=2),  # 224 -> 55
        batch_normalization(96, eps=1e-5),
        relu(),
        max_pooling(3, 2),  #  55 -> 27
        block(96, 256, 5, padding=2).append(max_pooling(3, 2)),  #  27 -> 13
        block(256, 384, 3, padding=1),  #  13 -> 13
        block(384, 384, 3, padding=1),
        block(384, 256, 3, padding=1).append(max_pooling(3, 2)),  #  13 -> 6
        block(256, 4096, 6),  #   6 -> 1
        block(4096, 4096, 1),
        batch_normalization(4096, eps=1e-3),
        relu(),
        convolution(4096, settings.n_classes, 1),
        View((settings.n_classes,)),
        LogSoftMax(),
    )
