"""What a backend is, and which there are."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Protocol

from torch import Tensor

from xnornet_port.errors import XnorNetError
from xnornet_port.kernels.geometry import Geometry, Pooling
from xnornet_port.kernels.packing import PackedInput, PackedWeights, Thresholds

__all__ = ["BACKENDS", "Backend", "load_backend"]

BACKENDS = {
    "cpu": "xnornet_port.kernels.cpu",
    "cuda": "xnornet_port.kernels.cuda",
    "reference": "xnornet_port.kernels.reference",
}


class Backend(Protocol):
    """Four functions; arguments come checked from `operations`. A module is one, and so may an object be.

    `x` is contiguous float32 (N, C, H, W), or packed; C is that of the weights. Whether their kernel fits into the
    picture, `Geometry.output_size` tells the backend, which keeps the answer if it likes.
    """

    def pack_input(self, x: Tensor) -> PackedInput:
        """Signs of x."""

    def xnor_conv2d(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
        """alpha * dot + bias, float32 (N, O, H', W')."""

    def xnor_dot(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
        """Integer dot products, int32 (N, O, H', W')."""

    def xnor_sign(
        self,
        x: Tensor | PackedInput,
        packed: PackedWeights,
        thresholds: Thresholds,
        geometry: Geometry,
        pooling: Pooling | None,
    ) -> PackedInput:
        """Signs by threshold of the (pooled) dot products."""


def load_backend(backend: str | Backend) -> Backend:
    """The module of a name, imported when asked for; anything else is a backend already."""
    if not isinstance(backend, str):
        if not hasattr(backend, "xnor_conv2d"):
            names = ", ".join(sorted(BACKENDS))
            raise XnorNetError(
                f"a backend is a name ({names}) or has its four functions, unlike {type(backend).__name__}"
            )
        return backend
    if backend not in BACKENDS:
        raise XnorNetError(f"backend {backend!r} is not known; there are {', '.join(sorted(BACKENDS))}")
    try:
        return _imported(BACKENDS[backend])  # a module with the four functions
    except ModuleNotFoundError as error:
        raise XnorNetError(f"backend {backend!r} cannot be used here: {error}") from error


@functools.cache
def _imported(name: str) -> ModuleType:
    return importlib.import_module(name)
