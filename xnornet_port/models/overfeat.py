"""OverFeat's fast network (soumith/imagenet-multiGPU.torch models/overfeat.lua)."""

from __future__ import annotations

from torch import nn

from lua_compat.nn import Dropout, LogSoftMax, View
from xnornet_port.layers import linear, max_pooling
from xnornet_port.models.multigpu_layers import convolution_relu, threshold, whole_network
from xnornet_port.models.settings import NetworkSettings

__all__ = ["overfeat"]


def overfeat(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures (or of 221) to (N, n_classes) log-probabilities; parameters are not initialised."""
    features = nn.Sequential(
        *convolution_relu(3, 96, 11, stride=4),  # 224 -> 54
        max_pooling(2, 2),  #  54 -> 27
        *convolution_relu(96, 256, 5),  #  27 -> 23
        max_pooling(2, 2),  #  23 -> 11
        *convolution_relu(256, 512, 3, padding=1),
        *convolution_relu(512, 1024, 3, padding=1),
        *convolution_relu(1024, 1024, 3, padding=1),
        max_pooling(2, 2),  #  11 -> 5
    )
    classifier = nn.Sequential(
        View((1024 * 5 * 5,)),
        Dropout(settings.dropout),
        linear(1024 * 5 * 5, 3072),
        threshold(),
        Dropout(settings.dropout),
        linear(3072, 4096),
        threshold(),
        linear(4096, settings.n_classes),
        LogSoftMax(),
    )
    return whole_network(features, classifier)
