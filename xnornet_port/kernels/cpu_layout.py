"""What the C library is given with a layer: weights in its order, and tables of what padding changes."""

from __future__ import annotations

from ctypes import byref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnornet_port.kernels.geometry import Geometry, Pair
from xnornet_port.kernels.native_library import Layer, NativeLibrary
from xnornet_port.kernels.packing import PackedWeights, Thresholds

__all__ = ["PreparedLayer", "prepare_layer", "prepare_thresholds"]

Integers = NDArray[np.int32]


@dataclass(frozen=True)
class PreparedLayer:
    """A filled struct xnor_layer, and the arrays it points to."""

    structure: Layer
    arrays: tuple[NDArray[Any], ...]
    output_size: Pair
    panel: int  # filters side by side
    work: int  # products of bits per picture


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
    weights = _weights(library, path, packed, layer)
    alpha = _padded(packed.alpha.numpy(), panel)
    bias = _padded(np.zeros(packed.out_channels, np.float32) if packed.bias is None else packed.bias.numpy(), panel)
    pixel_class, base = _padding_tables(packed, geometry, input_size, output_size, panel)
    layer.n_classes = base.shape[1]
    layer.weights, layer.alpha, layer.bias = weights.ctypes.data, alpha.ctypes.data, bias.ctypes.data
    layer.pixel_class, layer.base = pixel_class.ctypes.data, base.ctypes.data
    filter_size = packed.in_channels * packed.kernel_size[0] * packed.kernel_size[1]
    work = filter_size * packed.out_channels * output_size[0] * output_size[1]
    return PreparedLayer(layer, (weights, alpha, bias, pixel_class, base), output_size, panel, work)


def prepare_thresholds(packed: PackedWeights, thresholds: Thresholds, panel: int) -> tuple[Integers, ...]:
    """flip, positive_from and negative_to of struct xnor_call; kept, for a layer has the same ones every time."""
    key = ("cpu thresholds", panel)
    kept = packed.prepared.get(key)
    if kept is None or kept[0] is not thresholds:
        flip = -thresholds.descending.cpu().numpy().astype(np.int32)
        largest = np.iinfo(np.int32).max  # no dot product comes near; its negative exists, that of the least does not
        levels = [
            (np.clip(level.cpu().numpy().astype(np.int32), -largest, largest) ^ flip) - flip
            for level in (thresholds.positive_from, thresholds.negative_to)
        ]
        kept = packed.prepared[key] = (thresholds, *(_padded(array, panel) for array in (flip, *levels)))
    arrays: tuple[Integers, ...] = kept[1:]
    return arrays


def _weights(library: NativeLibrary, path: int, packed: PackedWeights, layer: Layer) -> NDArray[np.uint8]:
    """The library's order of the bits; one copy per layer, whatever the size of the pictures."""
    key = ("cpu weights", path, layer.dilation_x == 1)
    if key not in packed.prepared:
        n_bytes = library.functions.xnor_weight_bytes(path, byref(layer))
        weights = _aligned(n_bytes)
        signs = packed.signs.contiguous()
        library.functions.xnor_prepare(path, byref(layer), signs.data_ptr(), weights.ctypes.data)
        packed.prepared[key] = weights
    kept: NDArray[np.uint8] = packed.prepared[key]
    return kept


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
    filter's negative bits as differing: base takes them back, dot = base - 2 * differing.
    """
    rows, row_class = _inside(geometry, input_size, output_size, packed.kernel_size, axis=0)
    columns, column_class = _inside(geometry, input_size, output_size, packed.kernel_size, axis=1)
    inside = (rows[:, None, :, None] & columns[None, :, None, :]).reshape(len(rows) * len(columns), -1)
    negative = np.bitwise_count(packed.signs.numpy()[...].view(np.uint64)).sum(-1, dtype=np.int64)
    outside = negative.reshape(packed.out_channels, -1) @ ~inside.T  # negative bits per filter and class
    base = packed.in_channels * inside.sum(1) + 2 * outside
    base = np.pad(base, ((0, -len(base) % panel), (0, 0))).astype(np.int32)
    by_panel = base.reshape(-1, panel, len(inside)).transpose(0, 2, 1)
    classes = row_class[:, None] * len(columns) + column_class[None, :]
    return np.ascontiguousarray(classes.astype(np.int32)), np.ascontiguousarray(by_panel)


def _inside(
    geometry: Geometry, input_size: Pair, output_size: Pair, kernel: Pair, axis: int
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """The different sets of kernel positions that lie inside, along one axis; and which set each output has."""
    start = np.arange(output_size[axis]) * geometry.stride[axis] - geometry.padding[axis]
    position = start[:, None] + np.arange(kernel[axis]) * geometry.dilation[axis]
    sets, which = np.unique((position >= 0) & (position < input_size[axis]), axis=0, return_inverse=True)
    return sets, which.reshape(-1)
