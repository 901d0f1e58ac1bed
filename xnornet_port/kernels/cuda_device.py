"""A GPU through CuPy: xnor.cu compiled for it, kernels launched on torch's current stream.

Kernels get the addresses of torch's tensors, so nothing is copied. CuPy is imported here and only when asked for.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from xnornet_port.errors import XnorNetError
from xnornet_port.kernels.cuda_tiles import KERNELS, TILES, has_tensor_core

__all__ = ["Argument", "CupyDevice", "Device", "kernel_source", "open_device"]

Argument = Tensor | int | None  # None: a null pointer

_OLDEST_CUPY = 14  # which takes streams by their protocol, and warns of the older way
# cudaStreamLegacy, the default stream by a name of its own: CuPy may take 0 for the thread's own
# (CUPY_CUDA_PER_THREAD_DEFAULT_STREAM), torch never does.
_LEGACY_STREAM = 1


class Device(Protocol):
    """What `CudaBackend` needs of a GPU; the tests without one have their own."""

    capability: tuple[int, int]
    n_multiprocessors: int

    def launch(
        self, kernel: str, grid: tuple[int, ...], block: int, shared_bytes: int, arguments: tuple[Argument, ...]
    ) -> None:
        """Starts a kernel of xnor.cu; whole numbers are 32 bits wide."""

    def finish(self) -> None:
        """Waits for what was started."""


def kernel_source() -> str:
    """The text of xnor.cu."""
    return resources.files("xnornet_port.kernels").joinpath("xnor.cu").read_text(encoding="utf-8")


@functools.cache  # a GPU is opened and the kernels compiled once in a process; CuPy keeps the result on disk as well
def open_device(index: int) -> CupyDevice:
    """GPU number `index`. XnorNetError where CuPy or a compiler is missing."""
    return CupyDevice(_import_cupy(), index)


class CupyDevice:
    """One GPU with its compiled kernels."""

    def __init__(self, cupy: Any, index: int) -> None:
        properties = torch.cuda.get_device_properties(index)
        self.capability = (int(properties.major), int(properties.minor))
        self.n_multiprocessors = int(properties.multi_processor_count)
        self._cupy, self._index = cupy, index
        with cupy.cuda.Device(index):
            self._kernels = self._compile()

    def launch(
        self, kernel: str, grid: tuple[int, ...], block: int, shared_bytes: int, arguments: tuple[Argument, ...]
    ) -> None:
        stream = self._cupy.cuda.Stream.from_external(_Handle(torch.cuda.current_stream(self._index).cuda_stream))
        with self._cupy.cuda.Device(self._index), stream:
            self._kernels[kernel](
                grid, (block,), tuple(_by_value(argument) for argument in arguments), shared_mem=shared_bytes
            )

    def finish(self) -> None:
        torch.cuda.current_stream(self._index).synchronize()

    def _compile(self) -> dict[str, Any]:
        module = self._cupy.RawModule(code=kernel_source(), options=("--std=c++17",))
        try:
            module.compile()
            kernels = {name: module.get_function(name) for name in KERNELS if _is_for(name, self.capability)}
        except (ImportError, OSError, RuntimeError, self._cupy.cuda.compiler.CompileException) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise XnorNetError(
                f"CuPy cannot compile the CUDA kernels: {reason}; pip install '{_cupy_package()}[ctk]' may help"
            ) from error
        for tile in TILES:
            for words in (1, 2):
                if tile.kernel(words) in kernels:
                    kernels[tile.kernel(words)].max_dynamic_shared_size_bytes = tile.shared_bytes
        return kernels


class _Handle:
    """A stream as CuPy takes it from others (__cuda_stream__: version of the protocol, handle)."""

    def __init__(self, handle: int) -> None:
        self._handle = handle or _LEGACY_STREAM

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


def _is_for(kernel: str, capability: tuple[int, int]) -> bool:
    """Whether xnor.cu has the kernel on such a GPU."""
    return has_tensor_core(capability) or not kernel.startswith("xnor_tensor")


def _by_value(argument: Argument) -> Any:
    """As CuPy passes it: an address of 8 bytes or a whole number of 4."""
    if isinstance(argument, Tensor):
        return np.uint64(argument.data_ptr())
    return np.uint64(0) if argument is None else np.int32(argument)


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        # the last line that is not a frame: CuPy explains itself at length
        reason = [line.strip() for line in ("unknown", *str(error).splitlines()) if line.strip(" =")][-1]
        raise XnorNetError(
            f"backend 'cuda' needs CuPy: pip install {_cupy_package()} (missing here: {reason}); "
            "or choose backend 'cpu'"
        ) from error
    if int(cupy.__version__.split(".")[0]) < _OLDEST_CUPY:
        raise XnorNetError(
            f"backend 'cuda' needs CuPy {_OLDEST_CUPY} or later, this is {cupy.__version__}: "
            f"pip install --upgrade {_cupy_package()}; or choose backend 'cpu'"
        )
    return cupy


def _cupy_package() -> str:
    """The wheel for the CUDA that torch was built with."""
    major = (torch.version.cuda or "13").split(".")[0]
    return f"cupy-cuda{major}x"
