"""The public operations: arguments checked once, then the backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from xnornet_port.errors import XnorNetError
from xnornet_port.kernels.backends import Backend, load_backend
from xnornet_port.kernels.geometry import Geometry, Pair, Pooling
from xnornet_port.kernels.packing import PackedInput, PackedWeights, Thresholds, n_words, not_packed
from xnornet_port.kernels.uncompiled import uncompiled

__all__ = ["convolve", "convolve_to_signs", "pack_input", "xnor_conv2d", "xnor_dot", "xnor_sign"]


@uncompiled
def pack_input(x: Tensor, backend: str | Backend = "cpu") -> PackedInput:
    """Signs of real x (N, C, H, W) as bits."""
    return load_backend(backend).pack_input(_checked(x))


@uncompiled
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
    return convolve(x, packed, Geometry.of(stride, padding, dilation), backend, factor)


@uncompiled
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
    return load_backend(backend).xnor_dot(_fitting(x, packed), packed, geometry)


@uncompiled
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
    return convolve_to_signs(x, packed, thresholds, Geometry.of(stride, padding, dilation), pooling, backend)


def convolve(
    x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry, backend: str | Backend, factor: Tensor | None
) -> Tensor:
    """`xnor_conv2d` of a geometry."""
    chosen = load_backend(backend)
    x = _fitting(x, packed)
    if factor is None:
        return chosen.xnor_conv2d(x, packed, geometry)
    unbiased, bias = _without_bias(packed)
    scaled = chosen.xnor_conv2d(x, unbiased, geometry)
    batch, _, height, width = scaled.shape
    if not isinstance(factor, Tensor):
        raise XnorNetError(f"the factor must be a torch.Tensor, not {type(factor).__name__}")
    if factor.shape != (batch, 1, height, width) or factor.dtype != torch.float32:
        raise XnorNetError(f"the factor of {tuple(scaled.shape)} has shape {tuple(factor.shape)} ({factor.dtype})")
    scaled *= factor
    return scaled if bias is None else scaled.add_(bias.to(scaled.device))


def convolve_to_signs(
    x: Tensor | PackedInput,
    packed: PackedWeights,
    thresholds: Thresholds,
    geometry: Geometry,
    pooling: Pooling | None,
    backend: str | Backend,
) -> PackedInput:
    """`xnor_sign` of a geometry."""
    x = _fitting(x, packed)
    if packed.prepared.get("checked thresholds") is not thresholds:
        _check_thresholds(packed, thresholds)
    if pooling is not None and not isinstance(pooling, Pooling):
        raise XnorNetError(f"the pooling must be a Pooling, not {pooling!r}")
    return load_backend(backend).xnor_sign(x, packed, thresholds, geometry, pooling)


def _without_bias(packed: PackedWeights) -> tuple[PackedWeights, Tensor | None]:
    """The same weights without their bias, made once, and the bias as it is added to a result."""
    if packed.bias is None:
        return packed, None
    kept: tuple[PackedWeights, Tensor] | None = packed.prepared.get("without bias")
    if kept is None:
        kept = replace(packed, bias=None, prepared={}), packed.bias.view(1, -1, 1, 1)
        packed.prepared["without bias"] = kept
    return kept


def _check_thresholds(packed: PackedWeights, thresholds: Thresholds) -> None:
    """Once, as long as a layer has the same ones."""
    if not isinstance(thresholds, Thresholds):
        raise XnorNetError(f"thresholds must be Thresholds, not {type(thresholds).__name__}")
    for name in ("positive_from", "negative_to", "descending"):
        shape = tuple(getattr(thresholds, name).shape)
        if shape != (packed.out_channels,):
            raise XnorNetError(f"{packed.out_channels} filters need as many thresholds, {name} has {shape}")
    packed.prepared["checked thresholds"] = thresholds


def _checked(x: Tensor) -> Tensor:
    """x as contiguous float32 with the same signs."""
    if not isinstance(x, Tensor):
        hint = ": torch.from_numpy(x)" if isinstance(x, np.ndarray) else ""
        raise XnorNetError(f"the input must be a torch.Tensor or packed, not {type(x).__name__}{hint}")
    if x.ndim != 4 or x.numel() == 0:
        raise XnorNetError(f"the input must be (N, C, H, W) with nothing empty, not {tuple(x.shape)}")
    if x.dtype != torch.float32:  # a tiny double would round to 0
        if x.is_complex():
            raise XnorNetError(f"the input must be real, not {x.dtype}: a complex number has no such sign")
        x = x.sign().to(torch.float32)
    if x.requires_grad:
        x = x.detach()
    return x.contiguous()


def _fitting(x: Tensor | PackedInput, packed: PackedWeights) -> Tensor | PackedInput:
    """x, checked against the weights."""
    if not isinstance(packed, PackedWeights):
        raise not_packed(packed)
    if isinstance(x, PackedInput):
        signs, channels = x.signs, x.channels
        if signs.ndim != 4 or signs.size(3) != n_words(channels) or signs.numel() == 0:
            raise XnorNetError(f"packed bits of {channels} channels cannot have shape {tuple(signs.shape)}")
    else:
        x = _checked(x)
        channels = x.size(1)
    if channels != packed.in_channels:
        raise XnorNetError(f"the input has {channels} channels, the filters {packed.in_channels}")
    return x
