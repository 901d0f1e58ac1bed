"""The CUDA backend: the operations of the package as launches of xnor.cu's kernels.

Nothing here waits for the GPU, but for the first use of some weights. So `nonzero` of a result is always there: whether
there are zeros is found where the bits are used, block by block, and only blocks that meet one pay for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from xnornet_port.errors import XnorNetError
from xnornet_port.kernels.cuda_device import Device, open_device
from xnornet_port.kernels.cuda_tiles import TILES, choose_tile, pack_lanes
from xnornet_port.kernels.geometry import Geometry, Pooling
from xnornet_port.kernels.packing import PackedInput, PackedWeights, Thresholds, n_words

__all__ = ["CudaBackend", "pack_input", "xnor_conv2d", "xnor_dot", "xnor_sign"]

_FLOATS, _DOTS, _SIGNS = 0, 1, 2  # enum Output of xnor.cu
_BLOCK = 256
_MOST_PIXELS = 2**31 - 1  # they are counted in 32 bits


def pack_input(x: Tensor) -> PackedInput:
    """Signs of x (N, C, H, W)."""
    return backend_of(x).pack_input(x)


def xnor_conv2d(x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
    """alpha * dot + bias, float32 (N, O, H', W')."""
    return backend_of(x).xnor_conv2d(x, packed, geometry)


def xnor_dot(x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
    """Integer dot products, int32 (N, O, H', W')."""
    return backend_of(x).xnor_dot(x, packed, geometry)


def xnor_sign(
    x: Tensor | PackedInput,
    packed: PackedWeights,
    thresholds: Thresholds,
    geometry: Geometry,
    pooling: Pooling | None,
) -> PackedInput:
    """Signs by threshold of the (pooled) dot products; thresholds on x's GPU are used where they lie."""
    return backend_of(x).xnor_sign(x, packed, thresholds, geometry, pooling)


def backend_of(x: Tensor | PackedInput, tile: str | None = None) -> CudaBackend:
    """The backend on x's GPU. XnorNetError where there is none, or x is elsewhere, or CuPy is missing."""
    if not torch.cuda.is_available():
        built = "torch finds no GPU" if torch.version.cuda else "this torch is built without CUDA"
        raise XnorNetError(f"backend 'cuda' needs an NVIDIA GPU and {built}; choose backend 'cpu'")
    device = (x.signs if isinstance(x, PackedInput) else x).device
    if device.type != "cuda":
        raise XnorNetError(
            f"backend 'cuda' needs its input on the GPU, this one is on {device}: x.cuda(), or backend 'cpu'"
        )
    return CudaBackend(open_device(device.index), tile)


@dataclass(frozen=True)
class _Bits:
    """An input with what the convolution wants to know of each pixel."""

    signs: Tensor  # int64 (N, H, W, words)
    nonzero: Tensor | None
    info: Tensor  # int32 (N, H, W): twice the sum of the signs, plus 1 where one of them is 0
    channels: int


@dataclass(frozen=True)
class _Filters:
    """Weights on the GPU, kept in PackedWeights.prepared."""

    signs: Tensor
    nonzero: Tensor | None
    border_sums: Tensor  # int32 (O, kH + 1, kW + 1): what the places above and left of each add
    alpha: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class CudaBackend:
    """The four operations on one device; `tile` (a name of cuda_tiles.TILES) instead of the one chosen by size."""

    device: Device
    tile: str | None = None

    def pack_input(self, x: Tensor) -> PackedInput:
        bits = self._pack(x)
        return PackedInput(bits.signs, bits.nonzero, bits.channels)

    def xnor_conv2d(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
        return self._numbers(x, packed, geometry, _FLOATS)

    def xnor_dot(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
        return self._numbers(x, packed, geometry, _DOTS)

    def xnor_sign(
        self,
        x: Tensor | PackedInput,
        packed: PackedWeights,
        thresholds: Thresholds,
        geometry: Geometry,
        pooling: Pooling | None,
    ) -> PackedInput:
        bits = self._bits(x)
        limits = _limits(thresholds, bits.signs.device)
        if pooling is not None:
            return self._pool(self._numbers(x, packed, geometry, _DOTS), limits, pooling)
        height, width = geometry.output_size(_size(bits.signs), packed.kernel_size)
        signs = bits.signs.new_empty(bits.signs.shape[0], height, width, n_words(packed.out_channels))
        nonzero = torch.empty_like(signs)
        self._convolve(bits, packed, geometry, _SIGNS, signs, nonzero, limits)
        return PackedInput(signs, nonzero, packed.out_channels)

    def _numbers(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry, output: int) -> Tensor:
        bits = self._bits(x)
        height, width = geometry.output_size(_size(bits.signs), packed.kernel_size)
        shape = (bits.signs.shape[0], packed.out_channels, height, width)
        dtype = torch.float32 if output == _FLOATS else torch.int32
        out = torch.empty(shape, dtype=dtype, device=bits.signs.device)
        self._convolve(bits, packed, geometry, output, out, None, (None, None, None))
        return out

    def _bits(self, x: Tensor | PackedInput) -> _Bits:
        if isinstance(x, Tensor):
            return self._pack(x)
        n_pixels = _count_pixels(x.signs)
        signs, nonzero = _aligned(x.signs), None if x.nonzero is None else _aligned(x.nonzero)
        info = torch.empty(signs.shape[:3], dtype=torch.int32, device=signs.device)
        arguments = (signs, nonzero, info, n_pixels, x.channels, signs.shape[3])
        self.device.launch("xnor_pixel_info", (-(-n_pixels // _BLOCK),), _BLOCK, 0, arguments)
        return _Bits(signs, nonzero, info, x.channels)

    def _pack(self, x: Tensor) -> _Bits:
        n, channels, height, width = x.shape
        words = n_words(channels)
        signs = torch.empty(n, height, width, words, dtype=torch.int64, device=x.device)
        nonzero = torch.empty_like(signs)
        info = torch.empty(n, height, width, dtype=torch.int32, device=x.device)
        n_pixels, lanes = _count_pixels(signs), pack_lanes(words)
        arguments = (x, signs, nonzero, info, n_pixels, height * width, channels, words, lanes)
        grid = (-(-n_pixels // (_BLOCK // lanes)),)
        self.device.launch("xnor_pack", grid, _BLOCK, 2 * _BLOCK * 8, arguments)
        return _Bits(signs, nonzero, info, channels)

    def _convolve(
        self,
        bits: _Bits,
        packed: PackedWeights,
        geometry: Geometry,
        output: int,
        out: Tensor,
        out_nonzero: Tensor | None,
        limits: tuple[Tensor | None, Tensor | None, Tensor | None],
    ) -> None:
        filters = self._filters(packed, bits.signs.device)
        batch, height, width, words = bits.signs.shape
        out_height, out_width = geometry.output_size((height, width), packed.kernel_size)
        rows = batch * out_height * out_width
        if rows > _MOST_PIXELS:
            raise XnorNetError(f"a result of {rows} pixels is too large for the CUDA backend; take smaller batches")
        columns = packed.out_channels if output != _SIGNS else 64 * n_words(packed.out_channels)
        tile = next((tile for tile in TILES if tile.name == self.tile), None) or choose_tile(
            self.device.capability, self.device.n_multiprocessors, rows, columns
        )
        planes = (bits.signs, bits.nonzero, bits.info, filters.signs, filters.nonzero, filters.border_sums)
        results = (filters.alpha, filters.bias, *limits, out, out_nonzero, output)
        sizes = (batch, height, width, words, packed.out_channels, *packed.kernel_size, out_height, out_width)
        places = (*geometry.stride, *geometry.padding, *geometry.dilation)
        self.device.launch(
            tile.kernel(words),
            tile.grid(rows, columns),
            tile.threads,
            tile.shared_bytes,
            (*planes, *results, *sizes, *places),
        )

    def _pool(self, dots: Tensor, limits: tuple[Tensor, Tensor, Tensor], pooling: Pooling) -> PackedInput:
        batch, channels, height, width = dots.shape
        out_height, out_width = pooling.output_size((height, width))
        words = n_words(channels)
        signs = torch.empty(batch, out_height, out_width, words, dtype=torch.int64, device=dots.device)
        nonzero = torch.empty_like(signs)
        n_pixels = _count_pixels(signs)
        sizes = (n_pixels, channels, height, width, out_height, out_width)
        windows = (*pooling.kernel, *pooling.stride, *pooling.padding)
        arguments = (dots, *limits, signs, nonzero, *sizes, *windows)
        self.device.launch("xnor_pool_signs", (-(-n_pixels // _BLOCK), 2 * words), _BLOCK, 0, arguments)
        return PackedInput(signs, nonzero, channels)

    def _filters(self, packed: PackedWeights, device: torch.device) -> _Filters:
        key = ("cuda", str(device))
        if key not in packed.prepared:
            packed.prepared[key] = self._prepare(packed, device)
        return cast(_Filters, packed.prepared[key])

    def _prepare(self, packed: PackedWeights, device: torch.device) -> _Filters:
        signs = _aligned(packed.signs.to(device))
        nonzero = None if packed.nonzero is None else _aligned(packed.nonzero.to(device))
        sums = torch.empty(signs.shape[:3], dtype=torch.int32, device=device)
        n_places, words = sums.numel(), signs.shape[3]
        arguments = (signs, nonzero, sums, n_places, words)
        self.device.launch("xnor_place_sums", (-(-n_places // _BLOCK),), _BLOCK, 0, arguments)
        border_sums = functional.pad(sums.cumsum(1).cumsum(2), (1, 0, 1, 0)).to(torch.int32).contiguous()
        bias = None if packed.bias is None else packed.bias.to(device)
        filters = _Filters(signs, nonzero, border_sums, packed.alpha.to(device), bias)
        self.device.finish()  # the next call may come on another stream
        return filters


def _limits(thresholds: Thresholds, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Thresholds as the kernels read them."""
    positive_from, negative_to = thresholds.positive_from.to(device), thresholds.negative_to.to(device)
    return positive_from.contiguous(), negative_to.contiguous(), thresholds.descending.to(device).contiguous()


def _size(signs: Tensor) -> tuple[int, int]:
    return int(signs.shape[1]), int(signs.shape[2])


def _count_pixels(signs: Tensor) -> int:
    n_pixels = signs.shape[0] * signs.shape[1] * signs.shape[2]
    if n_pixels > _MOST_PIXELS:
        raise XnorNetError(f"{n_pixels} pixels are too many for the CUDA backend; take smaller batches")
    return n_pixels


def _aligned(words: Tensor) -> Tensor:
    """The same words, contiguous and on an address that copies of 16 bytes can start from."""
    words = words.contiguous()
    return words if words.data_ptr() % 16 == 0 else words.clone()
