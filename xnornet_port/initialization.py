"""Initial parameters as real Torch7 draws them: what module constructors draw, then what the original's code does.

Every function fills a network in place, in the order of construction, with the numbers that its original would draw
from the same generator. A batch normalisation's running statistics become those of a new one.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from lua_compat.generator import Generator

__all__ = ["as_constructed", "as_residual", "as_xnornet"]

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def as_constructed(network: nn.Module, generator: Generator) -> None:
    """What Torch7's constructors leave (reset): the networks of soumith/imagenet-multiGPU.torch.

    Weights and biases of convolutions and linear layers from U(-s, s), s = 1 / sqrt(fan_in); the scale of batch
    normalisations from U(0, 1), their shift 0.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                _draw_uniform(module, generator)
            elif isinstance(module, BatchNorm):
                _draw_scale(module, generator)


def as_xnornet(network: nn.Module, generator: Generator) -> None:
    """Constructors, then util.lua rand_initialize for all modules: weights from N(0, 2 / fan_in), zero biases.

    A batch normalisation keeps its scale from U(0, 1) because of a misspelt class name in util.lua.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                generator.rand(module.weight.numel() + len(module.weight))  # overwritten below
            elif isinstance(module, BatchNorm):
                _draw_scale(module, generator)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                scale = math.sqrt(2.0 / module.weight[0].numel())
                module.weight.copy_(torch.from_numpy(generator.randn(*module.weight.shape)).mul_(scale))
                if module.bias is not None:
                    module.bias.zero_()


def as_residual(network: nn.Module, generator: Generator) -> None:
    """Constructors, then fb.resnet.torch's ConvInit, BNInit and zero biases of linear layers.

    Weights of convolutions from N(0, 2 / (kW kH outputs)), batch normalisations with scale 1 and shift 0.
    """
    as_constructed(network, generator)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[:, 0].numel()
                generator.fill_normal(module.weight.numpy(), 0.0, math.sqrt(2.0 / fan_out))
            elif isinstance(module, BatchNorm):
                module.weight.fill_(1)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.zero_()


def _draw_uniform(module: nn.Conv2d | nn.Linear, generator: Generator) -> None:
    """Constructors draw a bias too where the original takes it away afterwards."""
    bound = 1.0 / math.sqrt(module.weight[0].numel())
    generator.fill_uniform(module.weight.numpy(), -bound, bound)
    if module.bias is None:
        generator.rand(len(module.weight))
    else:
        generator.fill_uniform(module.bias.numpy(), -bound, bound)


def _draw_scale(module: BatchNorm, generator: Generator) -> None:
    module.reset_running_stats()
    if module.affine:
        module.weight.copy_(torch.from_numpy(generator.rand(module.num_features)))
        module.bias.zero_()
