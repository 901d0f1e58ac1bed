"""What the C library is given with a layer: weights in its order, and tables of what padding changes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from ctypes import byref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xnornet_port.kernels.geometry import Geometry, Pair, Pooling
from xnornet_port.kernels.native_library import Call, Layer, NativeLibrary, Windows
from xnornet_port.kernels.packing import PackedWeights, Thresholds, pack_bits

__all__ = ["PreparedLayer", "PreparedThresholds", "pooling_windows", "prepare_layer", "prepare_thresholds"]

Integers = NDArray[np.int32]


@dataclass(frozen=True)
class PreparedLayer:
    """A filled struct xnor_layer in a function of the library, and the arrays it points to."""

    run: Callable[[Call], int]  # xnor_run of this layer
    arrays: tuple[NDArray[Any] | None, ...]
    output_shape: tuple[int, int, int]  # of a picture
    panel: int  # filters side by side
    work: int  # products of bits per picture


@dataclass(frozen=True)
class PreparedThresholds:
    """What struct xnor_call points to: arrays of whole panels, and where they lie."""

    thresholds: Thresholds
    arrays: tuple[Integers, Integers, Integers]
    flip: int
    positive_from: int
    negative_to: int


def prepare_layer(
    library: NativeLibrary, path: int, packed: PackedWeights, geometry: Geometry, input_size: Pair
) -> PreparedLayer:
    """For pictures of one size."""
    output_size = geometry.output_size(input_size, packed.kernel_size)
    panel: int = library.functions.xnor_path_panel(path)
    layer = Layer(
        packed.in_channels,
        *input_size,
        packed.out_channels,
        *packed.kernel_size,
        *geometry.stride,
        *geometry.padding,
        *geometry.dilation,
        *output_size,
    )
    weights, second_panel = _weights(library, path, packed, layer, panel)
    alpha = _padded(packed.alpha.numpy(), panel)
    bias = _padded(np.zeros(packed.out_channels, np.float32) if packed.bias is None else packed.bias.numpy(), panel)
    pixel_class, base = _padding_tables(packed, geometry, input_size, output_size, panel)
    layer.n_classes = base.shape[1]
    layer.weights, layer.alpha, layer.bias = weights.ctypes.data, alpha.ctypes.data, bias.ctypes.data
    layer.pixel_class, layer.base = pixel_class.ctypes.data, base.ctypes.data
    layer.second_panel = None if second_panel is None else second_panel.ctypes.data
    filter_size = packed.in_channels * packed.kernel_size[0] * packed.kernel_size[1]
    work = filter_size * packed.out_channels * output_size[0] * output_size[1]
    arrays = (weights, alpha, bias, pixel_class, base, second_panel)
    run = functools.partial(library.functions.xnor_run, path, layer)
    return PreparedLayer(run, arrays, (packed.out_channels, *output_size), panel, work)


def prepare_thresholds(packed: PackedWeights, thresholds: Thresholds, panel: int) -> PreparedThresholds:
    """flip, positive_from and negative_to of struct xnor_call; kept, for a layer has the same ones every time."""
    key = ("cpu thresholds", panel)
    kept: PreparedThresholds | None = packed.prepared.get(key)
    if kept is None or kept.thresholds is not thresholds:
        flip = -thresholds.descending.cpu().numpy().astype(np.int32)
        largest = np.iinfo(np.int32).max  # no dot product comes near; its negative exists, that of the least does not
        positive_from, negative_to = (
            (np.clip(level.cpu().numpy().astype(np.int32), -largest, largest) ^ flip) - flip
            for level in (thresholds.positive_from, thresholds.negative_to)
        )
        arrays = (_padded(flip, panel), _padded(positive_from, panel), _padded(negative_to, panel))
        kept = PreparedThresholds(thresholds, arrays, *(array.ctypes.data for array in arrays))
        packed.prepared[key] = kept
    return kept


@functools.lru_cache
def pooling_windows(pooling: Pooling, input_size: Pair) -> Windows:
    """struct xnor_pooling. XnorNetError where it does not fit."""
    return Windows(*pooling.kernel, *pooling.stride, *pooling.padding, *pooling.output_size(input_size))


def _weights(
    library: NativeLibrary, path: int, packed: PackedWeights, layer: Layer, panel: int
) -> tuple[NDArray[np.uint8], Integers | None]:
    """The library's order of the bits, and struct xnor_layer's second_panel; one copy, whatever the pictures' size."""
    key = ("cpu weights", path, layer.dilation_x == 1)
    kept: tuple[NDArray[np.uint8], Integers | None] | None = packed.prepared.get(key)
    if kept is None:  # and never read again: another thread may empty `prepared`
        first = _ordered(library, path, packed.signs, layer)
        if packed.nonzero is None:
            kept = first, None
        else:
            has_zero = (_zeros_as_minus(packed) != packed.signs).flatten(1).any(1).numpy()
            panels = np.flatnonzero(np.add.reduceat(has_zero, np.arange(0, len(has_zero), panel)))
            second_panel = np.full(-(-len(has_zero) // panel), -1, np.int32)
            second_panel[panels] = len(second_panel) + np.arange(len(panels))
            filters = np.minimum((panels[:, None] * panel + np.arange(panel)).ravel(), len(has_zero) - 1)
            second = _ordered(library, path, _zeros_as_minus(packed)[torch.from_numpy(filters)], layer)
            both = _aligned(len(first) + len(second))
            both[: len(first)], both[len(first) :] = first, second
            kept = both, second_panel
        packed.prepared[key] = kept
    return kept


def _ordered(library: NativeLibrary, path: int, signs: Tensor, layer: Layer) -> NDArray[np.uint8]:
    """Bits of filters (O, kH, kW, words) in whole panels."""
    filters, signs = Layer.from_buffer_copy(layer), signs.contiguous()
    filters.filters = len(signs)
    weights = _aligned(library.functions.xnor_weight_bytes(path, byref(filters)))
    library.functions.xnor_prepare(path, byref(filters), signs.data_ptr(), weights.ctypes.data)
    return weights


def _zeros_as_minus(packed: PackedWeights) -> Tensor:
    """Signs with bit 1 where a weight is 0, too."""
    all_channels = torch.from_numpy(pack_bits(np.ones(packed.in_channels, bool)).view(np.int64))
    return packed.signs if packed.nonzero is None else packed.signs | (packed.nonzero ^ all_channels)


def _aligned(n_bytes: int) -> NDArray[np.uint8]:
    """Bytes that begin with a cache line."""
    room = np.empty(n_bytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + n_bytes]


def _padded(array: NDArray[Any], panel: int) -> NDArray[Any]:
    """Zeros behind, up to a whole number of panels."""
    return np.pad(array, (0, -len(array) % panel))


def _padding_tables(
    packed: PackedWeights, geometry: Geometry, input_size: Pair, output_size: Pair, panel: int
) -> tuple[Integers, Integers]:
    """pixel_class (H', W') and base (panels, classes, panel).

    A kernel position outside the picture adds nothing to the dot product. Its bits are 0 there, so it has counted the
    filter's negative bits as differing: base takes them back, dot = base - 2 * differing. Where weights are 0, one of
    the two is of zeros taken as +1, the other of zeros as -1.
    """
    rows, row_class = _inside(geometry, input_size, output_size, packed.kernel_size, axis=0)
    columns, column_class = _inside(geometry, input_size, output_size, packed.kernel_size, axis=1)
    inside = (rows[:, None, :, None] & columns[None, :, None, :]).reshape(len(rows) * len(columns), -1)
    negative = np.zeros(packed.signs.shape[:3], np.int64)
    for words in (packed.signs, _zeros_as_minus(packed)):
        negative += np.bitwise_count(words.numpy().view(np.uint64)).sum(-1, dtype=np.int64)
    outside = negative.reshape(packed.out_channels, -1) @ ~inside.T  # bits of both sets per filter and class
    base = packed.in_channels * inside.sum(1) + outside
    base = np.pad(base, ((0, -len(base) % panel), (0, 0))).astype(np.int32)
    by_panel = _aligned(base.nbytes).view(np.int32).reshape(-1, len(inside), panel)
    by_panel[:] = base.reshape(-1, panel, len(inside)).transpose(0, 2, 1)
    classes = row_class[:, None] * len(columns) + column_class[None, :]
    return np.ascontiguousarray(classes.astype(np.int32)), by_panel


def _inside(
    geometry: Geometry, input_size: Pair, output_size: Pair, kernel: Pair, axis: int
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """The different sets of kernel positions that lie inside, along one axis; and which set each output has."""
    start = np.arange(output_size[axis]) * geometry.stride[axis] - geometry.padding[axis]
    position = start[:, None] + np.arange(kernel[axis]) * geometry.dilation[axis]
    sets, which = np.unique((position >= 0) & (position < input_size[axis]), axis=0, return_inverse=True)
    return sets, which.reshape(-1)
