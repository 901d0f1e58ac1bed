"""Initial parameters as real Torch7 draws them (module constructors, then util.lua rand_initialize)."""

from __future__ import annotations

import math

import torch
from torch import nn

from lua_compat.generator import Generator

__all__ = ["initialize"]


def initialize(network: nn.Module, generator: Generator) -> None:
    """Fill every parameter in place with the numbers the original would draw from the same generator.

    Two passes in the order of construction. Constructors draw uniform numbers for weights and biases; a batch
    normalisation keeps its scale from U(0, 1) because of a misspelt class name in util.lua. Then convolutions and
    linear layers get weights from N(0, 2 / fan_in) and zero biases.
    """
    with torch.no_grad():
        for module in network.modules():
            _construct(module, generator)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                _draw_normal_weights(module, generator)


def _construct(module: nn.Module, generator: Generator) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        generator.rand(sum(parameter.numel() for parameter in module.parameters()))  # overwritten below
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_running_stats()
        if module.affine:
            module.weight.copy_(torch.from_numpy(generator.rand(module.num_features)))
            module.bias.zero_()


def _draw_normal_weights(module: nn.Conv2d | nn.Linear, generator: Generator) -> None:
    fan_in = module.weight[0].numel()
    scale = math.sqrt(2.0 / fan_in)
    module.weight.copy_(torch.from_numpy(generator.randn(*module.weight.shape)).mul_(scale))
    if module.bias is not None:
        module.bias.zero_()
