"""The CPU backend in NumPy, for where the C library was not built: windows of words, and bitwise_count."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xnornet_port.kernels import reference
from xnornet_port.kernels.geometry import Geometry, Pooling
from xnornet_port.kernels.packing import PackedInput, PackedWeights, Thresholds, pack_bits
from xnornet_port.kernels.reference import pack_input

__all__ = ["pack_input", "xnor_conv2d", "xnor_dot", "xnor_sign"]

Words = NDArray[np.uint64]

_WORDS_AT_A_TIME = 1 << 18


def xnor_conv2d(x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
    """alpha * dot + bias, float32 (N, O, H', W')."""
    return reference.scaled(xnor_dot(x, packed, geometry), packed)


def xnor_dot(x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
    """Integer dot products, int32 (N, O, H', W')."""
    bits = x if isinstance(x, PackedInput) else pack_input(x)
    size = geometry.output_size((bits.signs.shape[1], bits.signs.shape[2]), packed.kernel_size)
    is_masked = bits.nonzero is not None or packed.nonzero is not None or geometry.padding != (0, 0)
    nonzero = _plane(bits.nonzero, bits.signs, bits.channels)
    a, weights = _windows(bits.signs, packed, geometry, size), _rows(packed.signs)
    mask = _windows(nonzero, packed, geometry, size)
    weight_mask = _rows(_plane(packed.nonzero, packed.signs, packed.in_channels))
    n_places = packed.in_channels * packed.kernel_size[0] * packed.kernel_size[1]
    dot = np.empty((len(a), len(weights)), np.int32)
    step = max(1, _WORDS_AT_A_TIME // weights.size)
    for row in range(0, len(a), step):
        differ = a[row : row + step, None] ^ weights
        if is_masked:
            both = mask[row : row + step, None] & weight_mask
            dot[row : row + step] = _count(both) - 2 * _count(differ & both)
        else:
            dot[row : row + step] = n_places - 2 * _count(differ)
    by_picture = dot.reshape(bits.signs.shape[0], *size, -1).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(by_picture))


def xnor_sign(
    x: Tensor | PackedInput,
    packed: PackedWeights,
    thresholds: Thresholds,
    geometry: Geometry,
    pooling: Pooling | None,
) -> PackedInput:
    """Signs by threshold of the (pooled) dot products."""
    return reference.pooled_signs(xnor_dot(x, packed, geometry), thresholds, pooling)


def _count(words: Words) -> NDArray[np.int32]:
    counts: NDArray[np.int32] = np.bitwise_count(words).sum(-1, dtype=np.int32)
    return counts


def _rows(words: Tensor) -> Words:
    """(O, kH, kW, words) as (O, kH * kW * words)."""
    return words.cpu().numpy().view(np.uint64).reshape(words.shape[0], -1)


def _plane(nonzero: Tensor | None, signs: Tensor, channels: int) -> Tensor:
    """What is not 0; every channel where there is no such plane."""
    if nonzero is not None:
        return nonzero
    return torch.from_numpy(pack_bits(np.ones(channels, bool)).view(np.int64)).expand(signs.shape).contiguous()


def _windows(words: Tensor, packed: PackedWeights, geometry: Geometry, size: tuple[int, int]) -> Words:
    """(N, H, W, words) as (N * H' * W', kH * kW * words); padding is 0."""
    (top, left), (step_y, step_x) = geometry.padding, geometry.stride
    array = np.pad(words.cpu().numpy().view(np.uint64), ((0, 0), (top, top), (left, left), (0, 0)))
    kernel_y, kernel_x = packed.kernel_size
    windows = np.empty((len(array), *size, kernel_y, kernel_x, array.shape[3]), np.uint64)
    for y in range(kernel_y):
        rows = slice(y * geometry.dilation[0], y * geometry.dilation[0] + (size[0] - 1) * step_y + 1, step_y)
        for x in range(kernel_x):
            first = x * geometry.dilation[1]
            windows[:, :, :, y, x] = array[:, rows, first : first + (size[1] - 1) * step_x + 1 : step_x]
    return windows.reshape(len(array) * size[0] * size[1], -1)
