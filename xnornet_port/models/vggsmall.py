"""A small VGG for CIFAR's pictures, the usual one of papers on binary networks, in binary blocks."""

from __future__ import annotations

from torch import nn

from lua_compat.nn import LogSoftMax, View
from xnornet_port.layers import batch_normalization, convolution, max_pooling, relu
from xnornet_port.models.settings import NetworkSettings

__all__ = ["vggsmall"]


def vggsmall(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 32, 32) pictures to (N, n_classes) log-probabilities; parameters are not initialised.

    The convolutions of BinaryConnect's network (arXiv 1511.00363: 128, 128, 256, 256, 512, 512 planes of 3x3) with one
    classifier in place of its three linear layers.
    """
    block = settings.binary.block
    return nn.Sequential(
        convolution(3, 128, 3, padding=1),
        block(128, 128, 3, padding=1).append(max_pooling(2, 2)),  # 32 -> 16
        block(128, 256, 3, padding=1),
        block(256, 256, 3, padding=1).append(max_pooling(2, 2)),  # 16 -> 8
        block(256, 512, 3, padding=1),
        block(512, 512, 3, padding=1).append(max_pooling(2, 2)),  #  8 -> 4
        batch_normalization(512),
        relu(),
        convolution(512, settings.n_classes, 4),  #  4 -> 1
        View((settings.n_classes,)),
        LogSoftMax(),
    )
