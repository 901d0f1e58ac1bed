"""VGG's network A, 11 layers, plain and with batch normalisation in its classifier.

soumith/imagenet-multiGPU.torch models/vgg.lua and models/vggbn.lua (modelType A, the one they build).
"""

from __future__ import annotations

from torch import nn

from lua_compat.nn import Dropout, LogSoftMax, View
from lua_compat.nn.normalization import BatchNormalization
from xnornet_port.layers import linear, max_pooling
from xnornet_port.models.multigpu_layers import convolution_relu, threshold, whole_network
from xnornet_port.models.settings import NetworkSettings

__all__ = ["vgg", "vggbn"]


def vgg(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; parameters are not initialised."""
    return whole_network(_features(), _classifier(settings, normalized=False))


def vggbn(settings: NetworkSettings) -> nn.Sequential:
    """The same with batch normalisation after the classifier's hidden layers; the features have none."""
    return nn.Sequential(_features(), _classifier(settings, normalized=True))


def _features() -> nn.Sequential:
    return nn.Sequential(
        *convolution_relu(3, 64, 3, padding=1),
        max_pooling(2, 2),  # 224 -> 112
        *convolution_relu(64, 128, 3, padding=1),
        max_pooling(2, 2),  # 112 -> 56
        *convolution_relu(128, 256, 3, padding=1),
        *convolution_relu(256, 256, 3, padding=1),
        max_pooling(2, 2),  #  56 -> 28
        *convolution_relu(256, 512, 3, padding=1),
        *convolution_relu(512, 512, 3, padding=1),
        max_pooling(2, 2),  #  28 -> 14
        *convolution_relu(512, 512, 3, padding=1),
        *convolution_relu(512, 512, 3, padding=1),
        max_pooling(2, 2),  #  14 -> 7
    )


def _classifier(settings: NetworkSettings, normalized: bool) -> nn.Sequential:
    return nn.Sequential(
        View((512 * 7 * 7,)),
        *_fully_connected(512 * 7 * 7, settings.dropout, normalized),
        *_fully_connected(4096, settings.dropout, normalized),
        linear(4096, settings.n_classes),
        LogSoftMax(),
    )


def _fully_connected(n_inputs: int, dropout: float, normalized: bool) -> list[nn.Module]:
    normalization = [BatchNormalization(4096, eps=1e-3)] if normalized else []
    return [linear(n_inputs, 4096), threshold(), *normalization, Dropout(dropout)]
