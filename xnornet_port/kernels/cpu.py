"""The CPU backend: the C library, or NumPy where it was not built.

The library chooses its code path by what the processor has; `CpuBackend("avx2")` asks for one of `available_paths()`.
Threads are torch's (torch.set_num_threads).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xnornet_port.errors import XnorNetError
from xnornet_port.kernels import cpu_numpy
from xnornet_port.kernels.backends import Backend
from xnornet_port.kernels.cpu_layout import PreparedLayer, pooling_windows, prepare_layer, prepare_thresholds
from xnornet_port.kernels.geometry import Geometry, Pooling
from xnornet_port.kernels.native_library import (
    RESULT_DOTS,
    RESULT_SCALED,
    RESULT_SIGNS,
    STATUS_NO_MEMORY,
    STATUS_ZEROS,
    Call,
    NativeLibrary,
    load_library,
)
from xnornet_port.kernels.packing import PackedInput, PackedWeights, Thresholds, n_words

__all__ = ["CpuBackend", "available_paths", "choose_backend", "pack_input", "xnor_conv2d", "xnor_dot", "xnor_sign"]

NO_LIBRARY = (
    "the XNOR kernels in C were not built (no C compiler when xnornet-port was installed?); NumPy does the work, "
    "many times slower. With a compiler: python -m pip install -e . in the checkout"
)
# Below so many products of bits starting a second thread costs more than it saves.
_WORTH_A_THREAD = 1 << 22
_CPU = torch.device("cpu")  # whatever torch.set_default_device says
_KEPT_SIZES = 32  # picture sizes for which a layer's tables are kept


def available_paths() -> list[str]:
    """Names of the code paths that run here, best first; empty where the library was not built."""
    library = load_library()
    return [] if library is None else list(library.paths)


def choose_backend(library: NativeLibrary | None, say: Callable[[str], None]) -> Backend:
    """The best there is; `say` is told where that is NumPy."""
    if library is not None:
        return CpuBackend(next(iter(library.paths)))
    say(NO_LIBRARY)
    return cpu_numpy


@functools.cache
def _best() -> Backend:
    return choose_backend(load_library(), lambda message: warnings.warn(message, RuntimeWarning, stacklevel=5))


def pack_input(x: Tensor) -> PackedInput:
    """Signs of x (N, C, H, W)."""
    return _best().pack_input(x)


def xnor_conv2d(x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
    """alpha * dot + bias, float32 (N, O, H', W')."""
    return _best().xnor_conv2d(x, packed, geometry)


def xnor_dot(x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
    """Integer dot products, int32 (N, O, H', W')."""
    return _best().xnor_dot(x, packed, geometry)


def xnor_sign(
    x: Tensor | PackedInput,
    packed: PackedWeights,
    thresholds: Thresholds,
    geometry: Geometry,
    pooling: Pooling | None,
) -> PackedInput:
    """Signs by threshold of the (pooled) dot products."""
    return _best().xnor_sign(x, packed, thresholds, geometry, pooling)


@dataclass(frozen=True)
class CpuBackend:
    """The C library on one code path; XnorNetError where it cannot run here."""

    instructions: str

    def __post_init__(self) -> None:
        if self.instructions not in available_paths():
            names = ", ".join(available_paths()) or "none, for the library was not built"
            raise XnorNetError(f"code path {self.instructions!r} does not run here; those that do: {names}")

    def pack_input(self, x: Tensor) -> PackedInput:
        library, path = self._library()
        batch, channels, height, width = _on_cpu(x).shape
        signs = torch.zeros(batch, height, width, n_words(channels), dtype=torch.int64, device=_CPU)
        arguments = (path, x.data_ptr(), batch, channels, height * width, signs.data_ptr())
        if library.functions.xnor_pack(*arguments, None) != STATUS_ZEROS:
            return PackedInput(signs, None, channels)
        nonzero = torch.zeros_like(signs)
        library.functions.xnor_pack(*arguments, nonzero.data_ptr())
        return PackedInput(signs, nonzero, channels)

    def xnor_conv2d(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
        return self._numbers(x, packed, geometry, RESULT_SCALED, torch.float32)

    def xnor_dot(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
        return self._numbers(x, packed, geometry, RESULT_DOTS, torch.int32)

    def xnor_sign(
        self,
        x: Tensor | PackedInput,
        packed: PackedWeights,
        thresholds: Thresholds,
        geometry: Geometry,
        pooling: Pooling | None,
    ) -> PackedInput:
        layer, call = self._prepare(x, packed, geometry)
        filters, height, width = layer.output_shape
        if pooling is not None:
            call.pooling = windows = pooling_windows(pooling, (height, width))
            height, width = windows.out_height, windows.out_width
        signs = torch.empty(call.batch, height, width, n_words(filters), dtype=torch.int64, device=_CPU)
        nonzero = torch.empty_like(signs)
        if filters % 64:
            signs.zero_()
            nonzero.zero_()
        levels = prepare_thresholds(packed, thresholds, layer.panel)
        call.flip, call.positive_from, call.negative_to = levels.flip, levels.positive_from, levels.negative_to
        call.result, call.out_signs, call.out_nonzero = RESULT_SIGNS, signs.data_ptr(), nonzero.data_ptr()
        has_zeros = _run(layer, call) == STATUS_ZEROS
        return PackedInput(signs, nonzero if has_zeros else None, filters)

    def _numbers(
        self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry, result: int, dtype: torch.dtype
    ) -> Tensor:
        layer, call = self._prepare(x, packed, geometry)
        out = torch.empty(call.batch, *layer.output_shape, dtype=dtype, device=_CPU)
        call.result, call.out = result, out.data_ptr()
        _run(layer, call)
        return out

    def _prepare(
        self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry
    ) -> tuple[PreparedLayer, Call]:
        """The layer for pictures of this size, and a call of it that lacks its result."""
        call = Call()
        if isinstance(x, PackedInput):
            batch, height, width, _ = x.signs.shape
            call.signs = _on_cpu(x.signs).data_ptr()
            call.nonzero = None if x.nonzero is None else _on_cpu(x.nonzero).data_ptr()
        else:
            batch, _, height, width = x.shape
            call.x = _on_cpu(x).data_ptr()
        key = ("cpu", self.instructions, height, width, geometry)
        layer: PreparedLayer | None = packed.prepared.get(key)
        if layer is None:
            if len(packed.prepared) > _KEPT_SIZES:
                packed.prepared.clear()
            layer = packed.prepared[key] = prepare_layer(*self._library(), packed, geometry, (height, width))
        call.batch, call.threads = batch, 1
        if batch * layer.work >= _WORTH_A_THREAD and (threads := torch.get_num_threads()) > 1:
            call.threads, call.parallel = threads, self._library()[0].parallel_here()
        return layer, call

    def _library(self) -> tuple[NativeLibrary, int]:
        library = load_library()
        if library is None:  # cannot be: __post_init__ has looked
            raise XnorNetError(NO_LIBRARY)
        return library, library.paths[self.instructions]


def _run(layer: PreparedLayer, call: Call) -> int:
    status = layer.run(call)
    if status == STATUS_NO_MEMORY:
        raise MemoryError("no memory for an XNOR convolution's packed input")
    return status


def _on_cpu(tensor: Tensor) -> Tensor:
    if not tensor.is_cpu or not tensor.is_contiguous():
        raise XnorNetError(f"the cpu backend needs contiguous tensors of the CPU, not of {tensor.device}")
    return tensor
