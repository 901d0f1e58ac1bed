"""The XNOR-Network of Network in Network: ninbn with binary blocks, as alexnetxnor is to alexnet.

The authors published none. The first convolution and the classifier, here a convolution, stay real.
"""

from __future__ import annotations

from torch import nn

from lua_compat.nn import LogSoftMax, View
from xnornet_port.layers import average_pooling, batch_normalization, convolution, max_pooling, relu
from xnornet_port.models.settings import NetworkSettings

__all__ = ["ninxnor"]


def ninxnor(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; parameters are not initialised."""
    block = settings.binary.block
    return nn.Sequential(
        convolution(3, 96, 11, stride=4, padding=5),  # 224 -> 56
        batch_normalization(96),
        relu(),
        *_ones(settings, 96),
        max_pooling(3, 2, padding=1),  #  56 -> 28
        block(96, 256, 5, padding=2),
        *_ones(settings, 256),
        max_pooling(3, 2, padding=1),  #  28 -> 14
        block(256, 384, 3, padding=1),
        *_ones(settings, 384),
        max_pooling(3, 2, padding=1),  #  14 -> 7
        block(384, 1024, 3, padding=1),
        *_ones(settings, 1024),
        batch_normalization(1024, eps=1e-3),
        relu(),
        average_pooling(7),
        convolution(1024, settings.n_classes, 1),
        View((settings.n_classes,)),
        LogSoftMax(),
    )


def _ones(settings: NetworkSettings, n_planes: int) -> list[nn.Sequential]:
    """The two convolutions of 1x1 that follow a larger one."""
    block = settings.binary.block
    return [block(n_planes, n_planes, 1), block(n_planes, n_planes, 1)]
