"""AlexNet with batch normalisation and fully convolutional head: the Binary-Weight-Network (models/alexnet.lua)."""

from __future__ import annotations

from torch import nn

from lua_compat.nn import LogSoftMax, SpatialDropout, View
from xnornet_port.layers import batch_normalization, convolution, max_pooling, relu
from xnornet_port.models.settings import NetworkSettings

__all__ = ["alexnet"]


def alexnet(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; parameters are not initialised."""
    return nn.Sequential(
        _block(3, 96, 11, stride=4, padding=2),  # 224 -> 55
        max_pooling(3, 2),  #  55 -> 27
        _block(96, 256, 5, padding=2),  #  27 -> 27
        max_pooling(3, 2),  #  27 -> 13
        _block(256, 384, 3, padding=1),  #  13 -> 13
        _block(384, 384, 3, padding=1),
        _block(384, 256, 3, padding=1),
        max_pooling(3, 2),  #  13 -> 6
        SpatialDropout(settings.dropout),
        _block(256, 4096, 6),  #   6 -> 1
        SpatialDropout(settings.dropout),
        _block(4096, 4096, 1),
        convolution(4096, settings.n_classes, 1),
        View((settings.n_classes,)),
        LogSoftMax(),
    )


def _block(n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(
        convolution(n_inputs, n_outputs, kernel, stride, padding),
        batch_normalization(n_outputs, eps=1e-3),
        relu(),
    )
