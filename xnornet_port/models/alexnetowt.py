"""AlexNet of the paper One Weird Trick (arXiv 1404.5997), plain and with batch normalisation.

soumith/imagenet-multiGPU.torch models/alexnetowt.lua and models/alexnetowtbn.lua.
"""

from __future__ import annotations

from torch import nn

from lua_compat.nn import Dropout, LogSoftMax, View
from lua_compat.nn.normalization import BatchNormalization
from xnornet_port.layers import linear, max_pooling
from xnornet_port.models.multigpu_layers import normalized_convolution, relu, whole_network
from xnornet_port.models.settings import NetworkSettings

__all__ = ["alexnetowt", "alexnetowtbn"]


def alexnetowt(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; parameters are not initialised."""
    return _network(settings, normalized=False)


def alexnetowtbn(settings: NetworkSettings) -> nn.Sequential:
    """The same with batch normalisation after every layer but the last."""
    return _network(settings, normalized=True)


def _network(settings: NetworkSettings, normalized: bool) -> nn.Sequential:
    features = nn.Sequential(
        *normalized_convolution(3, 64, 11, normalized, stride=4, padding=2),  # 224 -> 55
        max_pooling(3, 2),  #  55 -> 27
        *normalized_convolution(64, 192, 5, normalized, padding=2),
        max_pooling(3, 2),  #  27 -> 13
        *normalized_convolution(192, 384, 3, normalized, padding=1),
        *normalized_convolution(384, 256, 3, normalized, padding=1),
        *normalized_convolution(256, 256, 3, normalized, padding=1),
        max_pooling(3, 2),  #  13 -> 6
    )
    classifier = nn.Sequential(
        View((256 * 6 * 6,)),
        *_fully_connected(256 * 6 * 6, settings.dropout, normalized),
        *_fully_connected(4096, settings.dropout, normalized),
        linear(4096, settings.n_classes),
        LogSoftMax(),
    )
    return whole_network(features, classifier)


def _fully_connected(n_inputs: int, dropout: float, normalized: bool) -> list[nn.Module]:
    normalization = [BatchNormalization(4096, eps=1e-3)] if normalized else []
    return [Dropout(dropout), linear(n_inputs, 4096), *normalization, relu(inplace=False)]
