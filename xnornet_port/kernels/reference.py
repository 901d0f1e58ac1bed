"""The definition in NumPy; every other backend is tested against it.

For bits a, w of values +1 and -1 the product is negative where they differ, so a dot product over the n places where
neither is 0 is n - 2 popcount(a xor w).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xnornet_port.kernels.geometry import Geometry, Pooling
from xnornet_port.kernels.packing import PackedInput, PackedWeights, Thresholds, as_words, pack_bits

__all__ = ["pack_input", "pool", "pooled_signs", "scale", "scaled", "signs_of", "xnor_conv2d", "xnor_dot", "xnor_sign"]

Words = NDArray[np.uint64]
Integers = NDArray[np.int32]


def pack_input(x: Tensor) -> PackedInput:
    """Signs of x (N, C, H, W)."""
    values = x.cpu().permute(0, 2, 3, 1).numpy()
    return _from_signs(values < 0, (values < 0) | (values > 0))


def xnor_conv2d(x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
    """alpha * dot + bias, float32 (N, O, H', W')."""
    return scaled(xnor_dot(x, packed, geometry), packed)


def xnor_dot(x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
    """Integer dot products, int32 (N, O, H', W')."""
    bits = x if isinstance(x, PackedInput) else pack_input(x)
    (stride_y, stride_x), (dilation_y, dilation_x) = geometry.stride, geometry.dilation
    n_outputs, (kernel_y, kernel_x) = packed.out_channels, packed.kernel_size
    height, width = geometry.output_size((bits.signs.shape[1], bits.signs.shape[2]), packed.kernel_size)
    around = ((0, 0), (geometry.padding[0],) * 2, (geometry.padding[1],) * 2, (0, 0))
    signs = np.pad(_words(bits.signs), around)
    nonzero = np.pad(_nonzero_words(bits.nonzero, signs_shape=bits.signs.shape, channels=bits.channels), around)
    weight_signs = _words(packed.signs)
    weight_nonzero = _nonzero_words(packed.nonzero, packed.signs.shape, packed.in_channels)
    dot = np.zeros((len(signs), n_outputs, height, width), np.int32)
    for y in range(kernel_y):
        rows = slice(y * dilation_y, y * dilation_y + (height - 1) * stride_y + 1, stride_y)
        for x_offset in range(kernel_x):
            columns = slice(x_offset * dilation_x, x_offset * dilation_x + (width - 1) * stride_x + 1, stride_x)
            a, counts = signs[:, rows, columns], nonzero[:, rows, columns]
            for o in range(n_outputs):
                both = counts & weight_nonzero[o, y, x_offset]
                differ = (a ^ weight_signs[o, y, x_offset]) & both
                dot[:, o] += np.bitwise_count(both).sum(-1, dtype=np.int32)
                dot[:, o] -= 2 * np.bitwise_count(differ).sum(-1, dtype=np.int32)
    return torch.from_numpy(dot)


def xnor_sign(
    x: Tensor | PackedInput,
    packed: PackedWeights,
    thresholds: Thresholds,
    geometry: Geometry,
    pooling: Pooling | None,
) -> PackedInput:
    """Signs by threshold of the (pooled) dot products."""
    return pooled_signs(xnor_dot(x, packed, geometry), thresholds, pooling)


def scaled(dot: Tensor, packed: PackedWeights) -> Tensor:
    """alpha * dot + bias of integers (N, O, H, W)."""
    bias = np.zeros(packed.out_channels, np.float32) if packed.bias is None else packed.bias.cpu().numpy()
    return torch.from_numpy(scale(dot.numpy(), packed.alpha.cpu().numpy(), bias))


def pooled_signs(dot: Tensor, thresholds: Thresholds, pooling: Pooling | None) -> PackedInput:
    """Signs of integers (N, O, H, W), max-pooled first where there is a pooling."""
    return signs_of(dot.numpy() if pooling is None else pool(dot.numpy(), pooling), thresholds)


def scale(dot: Integers, alpha: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """alpha * dot + bias of (N, O, H, W) rounded once, as the fused multiply-add of float32.

    The product is exact in double. The sum is rounded to odd there (its last bit set where something was cut off),
    after which rounding to float32 gives what rounding the exact sum would.
    """
    product = alpha.astype(np.float64)[:, None, None] * dot
    addend = bias.astype(np.float64)[:, None, None]
    total = product + addend
    part = total - product
    with np.errstate(invalid="ignore"):
        lost = (product - (total - part)) + (addend - part)  # Knuth's two-sum: total + lost is exact
    bits = total.view(np.int64)
    inexact = np.isfinite(lost) & (lost != 0) & (bits & 1 == 0)
    bits += np.where(inexact, np.where((lost > 0) == (total > 0), 1, -1), 0)
    return total.astype(np.float32)


def pool(dot: Integers, pooling: Pooling) -> Integers:
    """Max pooling of (N, O, H, W); places outside never win."""
    height, width = pooling.output_size(dot.shape[2:])
    (kernel_y, kernel_x), (stride_y, stride_x) = pooling.kernel, pooling.stride
    lowest = np.iinfo(np.int32).min
    after = [(n - 1) * s + k for n, s, k in zip((height, width), pooling.stride, pooling.kernel, strict=True)]
    around = [(p, max(0, end - p - size)) for p, end, size in zip(pooling.padding, after, dot.shape[2:], strict=True)]
    padded = np.pad(dot, ((0, 0), (0, 0), *around), constant_values=lowest)
    result = np.full((*dot.shape[:2], height, width), lowest, np.int32)
    for y in range(kernel_y):
        rows = slice(y, y + (height - 1) * stride_y + 1, stride_y)
        for x in range(kernel_x):
            np.maximum(result, padded[:, :, rows, x : x + (width - 1) * stride_x + 1 : stride_x], out=result)
    return result


def signs_of(dot: Integers, thresholds: Thresholds) -> PackedInput:
    """+1, 0 or -1 for each of (N, O, H, W), packed (N, H, W, ceil(O / 64))."""
    dot = dot.transpose(0, 2, 3, 1)
    positive_from, negative_to = thresholds.positive_from.cpu().numpy(), thresholds.negative_to.cpu().numpy()
    descending = thresholds.descending.cpu().numpy()
    positive = np.where(descending, dot <= positive_from, dot >= positive_from)
    negative = np.where(descending, dot >= negative_to, dot <= negative_to) & ~positive
    return _from_signs(negative, positive | negative)


def _from_signs(negative: NDArray[np.bool_], nonzero: NDArray[np.bool_]) -> PackedInput:
    is_plain = bool(nonzero.all())
    plane = None if is_plain else as_words(pack_bits(nonzero))
    return PackedInput(as_words(pack_bits(negative)), plane, negative.shape[-1])


def _words(tensor: Tensor) -> Words:
    return tensor.cpu().numpy().view(np.uint64)


def _nonzero_words(nonzero: Tensor | None, signs_shape: torch.Size, channels: int) -> Words:
    """The plane of what is not 0; every channel where there is none."""
    if nonzero is not None:
        return _words(nonzero)
    return np.broadcast_to(pack_bits(np.ones(channels, bool)), tuple(signs_shape))
