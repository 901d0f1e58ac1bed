"""SqueezeNet with simple bypass (arXiv 1602.07360; soumith/imagenet-multiGPU.torch models/squeezenet.lua)."""

from __future__ import annotations

from torch import nn

from lua_compat.nn import Dropout, LogSoftMax, View
from lua_compat.nn.containers import Concat
from xnornet_port.layers import max_pooling
from xnornet_port.models.multigpu_layers import average_pooling, convolution, convolution_relu, relu, whole_network
from xnornet_port.models.residual import summed
from xnornet_port.models.settings import NetworkSettings

__all__ = ["squeezenet"]


def squeezenet(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; parameters are not initialised."""
    return whole_network(
        *convolution_relu(3, 96, 7, stride=2),  # 224 -> 109
        max_pooling(3, 2),  # 109 -> 54
        _fire(96, 16, 64),
        _bypass(_fire(128, 16, 64)),
        _fire(128, 32, 128),
        max_pooling(3, 2),  #  54 -> 26
        _bypass(_fire(256, 32, 128)),
        _fire(256, 48, 192),
        _bypass(_fire(384, 48, 192)),
        _fire(384, 64, 256),
        max_pooling(3, 2),  #  26 -> 12
        _bypass(_fire(512, 64, 256)),
        Dropout(settings.dropout),
        *convolution_relu(512, settings.n_classes, 1, padding=1),  #  12 -> 14
        average_pooling(14),
        View((settings.n_classes,)),
        LogSoftMax(),
    )


def _fire(n_inputs: int, n_squeezed: int, n_expanded: int) -> nn.Sequential:
    """1x1 to few planes, then 1x1 and 3x3 side by side to `n_expanded` planes each."""
    expand = Concat([convolution(n_squeezed, n_expanded, 1), convolution(n_squeezed, n_expanded, 3, padding=1)], 2)
    return nn.Sequential(*convolution_relu(n_inputs, n_squeezed, 1), expand, relu())


def _bypass(module: nn.Sequential) -> nn.Sequential:
    return summed(module, nn.Identity())
