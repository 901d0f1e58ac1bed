"""The public operations: arguments checked once, then the backend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from xnornet_port.errors import XnorNetError
from xnornet_port.kernels.backends import Backend, load_backend
from xnornet_port.kernels.geometry import Geometry, Pair, Pooling
from xnornet_port.kernels.packing import PackedInput, PackedWeights, Thresholds, n_words

__all__ = ["pack_input", "xnor_conv2d", "xnor_dot", "xnor_sign"]


def pack_input(x: Tensor, backend: str | Backend = "cpu") -> PackedInput:
    """Signs of real x (N, C, H, W) as bits."""
    return load_backend(backend).pack_input(_checked(x))


def xnor_conv2d(
    x: Tensor | PackedInput,
    packed: PackedWeights,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    backend: str | Backend = "cpu",
    factor: Tensor | None = None,
) -> Tensor:
    """Convolution of sign(x) with alpha * sign(W), plus bias; no gradient.

    x is real (N, I, H, W), or packed; the result float32 (N, O, H', W'), each element one fused multiply-add of the
    exact integer dot product. sign(0) = 0, and zero padding adds 0. `factor`, float32 (N, 1, H', W'), is multiplied in
    before the bias is added: alpha * dot, times it, plus bias, each rounded. XnorNetError where the shapes do not fit.
    """
    geometry = Geometry.of(stride, padding, dilation)
    chosen = load_backend(backend)
    if factor is None:
        return chosen.xnor_conv2d(_fitting(x, packed, geometry), packed, geometry)
    scaled = chosen.xnor_conv2d(_fitting(x, packed, geometry), _without_bias(packed), geometry)
    if factor.shape != (scaled.shape[0], 1, *scaled.shape[2:]) or factor.dtype != torch.float32:
        raise XnorNetError(f"the factor of {tuple(scaled.shape)} has shape {tuple(factor.shape)} ({factor.dtype})")
    scaled *= factor
    return scaled if packed.bias is None else scaled.add_(packed.bias.view(1, -1, 1, 1))


def xnor_dot(
    x: Tensor | PackedInput,
    packed: PackedWeights,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    backend: str | Backend = "cpu",
) -> Tensor:
    """Convolution of sign(x) with sign(W): int32 (N, O, H', W'). As `xnor_conv2d` otherwise."""
    geometry = Geometry.of(stride, padding, dilation)
    return load_backend(backend).xnor_dot(_fitting(x, packed, geometry), packed, geometry)


def xnor_sign(
    x: Tensor | PackedInput,
    packed: PackedWeights,
    thresholds: Thresholds,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    pooling: Pooling | None = None,
    backend: str | Backend = "cpu",
) -> PackedInput:
    """`xnor_dot`, max pooling of the integers, each one's sign by its channel's thresholds: the next layer's input."""
    geometry = Geometry.of(stride, padding, dilation)
    for name in ("positive_from", "negative_to", "descending"):
        if getattr(thresholds, name).shape != (packed.out_channels,):
            shape = tuple(getattr(thresholds, name).shape)
            raise XnorNetError(f"{packed.out_channels} filters need as many thresholds, {name} has {shape}")
    return load_backend(backend).xnor_sign(_fitting(x, packed, geometry), packed, thresholds, geometry, pooling)


def _without_bias(packed: PackedWeights) -> PackedWeights:
    """The same weights without their bias, made once."""
    if packed.bias is None:
        return packed
    kept: dict[Any, Any] = packed.prepared
    if "without bias" not in kept:
        kept["without bias"] = replace(packed, bias=None, prepared={})
    unbiased: PackedWeights = kept["without bias"]
    return unbiased


def _checked(x: Tensor) -> Tensor:
    """x as contiguous float32 with the same signs."""
    if x.ndim != 4 or 0 in x.shape:
        raise XnorNetError(f"the input must be (N, C, H, W) with nothing empty, not {tuple(x.shape)}")
    if x.dtype != torch.float32:  # a tiny double would round to 0
        x = x.sign().to(torch.float32)
    return x.detach().contiguous()


def _fitting(x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor | PackedInput:
    """x, checked against the weights."""
    if isinstance(x, PackedInput):
        if x.signs.ndim != 4 or x.signs.shape[3] != n_words(x.channels) or 0 in x.signs.shape:
            raise XnorNetError(f"packed bits of {x.channels} channels cannot have shape {tuple(x.signs.shape)}")
        channels, height, width = x.channels, x.signs.shape[1], x.signs.shape[2]
    else:
        x = _checked(x)
        channels, height, width = x.shape[1], x.shape[2], x.shape[3]
    if channels != packed.in_channels:
        raise XnorNetError(f"the input has {channels} channels, the filters {packed.in_channels}")
    geometry.output_size((height, width), packed.kernel_size)
    return x
