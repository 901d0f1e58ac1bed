"""AlexNet with binary inputs and weights: the XNOR-Network (models/alexnetxnor.lua)."""

from __future__ import annotations

from torch import nn

from lua_compat.nn import LogSoftMax, View
from xnornet_port.layers import BinActiveZ, batch_normalization, convolution, max_pooling, relu

__all__ = ["alexnetxnor"]


def alexnetxnor(n_classes: int, dropout: float) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; parameters are not initialised.

    `dropout` has no effect: the network has none, as in the original.
    """
    return nn.Sequential(
        convolution(3, 96, 11, stride=4, padding=2),  # 224 -> 55
        batch_normalization(96, eps=1e-5),
        relu(),
        max_pooling(3, 2),  #  55 -> 27
        _binary_block(96, 256, 5, padding=2, pool=True),  #  27 -> 13
        _binary_block(256, 384, 3, padding=1),  #  13 -> 13
        _binary_block(384, 384, 3, padding=1),
        _binary_block(384, 256, 3, padding=1, pool=True),  #  13 -> 6
        _binary_block(256, 4096, 6),  #   6 -> 1
        _binary_block(4096, 4096, 1),
        batch_normalization(4096, eps=1e-3),
        relu(),
        convolution(4096, n_classes, 1),
        View((n_classes,)),
        LogSoftMax(),
    )


def _binary_block(n_inputs: int, n_outputs: int, kernel: int, padding: int = 0, pool: bool = False) -> nn.Sequential:
    block = nn.Sequential(
        batch_normalization(n_inputs, eps=1e-4),
        nn.Sequential(BinActiveZ()),
        convolution(n_inputs, n_outputs, kernel, padding=padding),
    )
    if pool:
        block.append(max_pooling(3, 2))
    return block
