"""What a network takes: the channels of its pictures, the sizes worth trying, and sizes as they are typed."""

from __future__ import annotations

import argparse

from torch import nn

from lua_compat.nn.convolution_local import SpatialConvolutionMap

__all__ = ["input_channels", "input_size", "known_input_size", "likely_sizes"]

Sizes = tuple[int, ...]

SIDES = (224, 32, 227, 231, 299, 28)
"""Sides of a picture tried where none is given: ImageNet's, CIFAR's, and those of older networks."""
COLOURS = 3


def input_size(text: str) -> Sizes:
    """3,224,224 or 3x224x224 as a tuple, as the type of an argument."""
    try:
        sizes = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"expected sizes such as 3,224,224, found {text!r}")
    return sizes


def input_channels(network: nn.Module) -> int | None:
    """Of the first convolution, in the order of the network's modules; None where there is none."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
        if isinstance(module, SpatialConvolutionMap):
            return module.n_inputs
    return None


def known_input_size(network: nn.Module) -> Sizes | None:
    """The size of one sample where the network's first layer with parameters says it: a Linear."""
    for module in network.modules():
        if any(True for _ in module.parameters(recurse=False)):
            return (module.in_features,) if isinstance(module, nn.Linear) else None
    return None


def likely_sizes(network: nn.Module, typed: int | Sizes | None) -> list[Sizes]:
    """Of one sample, the likeliest first: as typed, where a lone number is the side of a picture, else all known ones.

    Pictures have the channels of the first convolution, or, should something stand before it, three.
    """
    if isinstance(typed, tuple) and len(typed) > 1:
        return [typed]
    sides = SIDES if typed is None else (typed if isinstance(typed, tuple) else (typed,))
    channels = dict.fromkeys((input_channels(network) or COLOURS, COLOURS))
    pictures = [(number, side, side) for number in channels for side in sides]
    vector = known_input_size(network) if typed is None else None
    return [*pictures, *([] if vector is None else [vector])]
