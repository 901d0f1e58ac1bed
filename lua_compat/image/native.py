"""The C code of scaling (_scaling.c), where it was built: `python setup.py build_ext --inplace`, or pip and a compiler.

It is called through ctypes, which lets other threads run meanwhile. Without it scaling.py computes the same bits in
NumPy, several times slower.
"""

import ctypes
import functools
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["NativeScaleCrop", "native_scale_crop"]

Float32 = NDArray[np.float32]

PLACES = [Path(__file__).with_name("_scaling" + suffix) for suffix in EXTENSION_SUFFIXES]


class NativeScaleCrop(Protocol):
    """The call of the C function; its inputs have been checked.

    pixels: uint8 (H, W, 3), the pixels of a row 3 or 4 bytes apart. sizes: source width and height, scaled width and
    height, left, top, width and height of the crop in the scaled picture. normal: float32 (6,), -mean and std, or None.
    out: float32 (3, crop height, crop width), contiguous. False: nothing was done, as the picture is too large for it.
    """

    def __call__(
        self, pixels: NDArray[np.uint8], sizes: list[int], flip: bool, step: float, normal: Float32 | None, out: Float32
    ) -> bool: ...


@functools.cache
def native_scale_crop() -> NativeScaleCrop | None:
    """The C function, or None where it was not built or does not load here (made for another system)."""
    for place in PLACES:
        try:
            function = ctypes.CDLL(str(place)).lua_image_scale_crop
        except (OSError, AttributeError):
            continue
        return _typed(function)
    return None


def _typed(function: "ctypes._NamedFuncPointer") -> NativeScaleCrop:
    address, length = ctypes.c_void_p, ctypes.c_ssize_t
    sizes_type = ctypes.c_int64 * 8
    function.argtypes = (address, length, length, sizes_type, ctypes.c_int, ctypes.c_float, address, address)
    function.restype = ctypes.c_int

    def call(
        pixels: NDArray[np.uint8], sizes: list[int], flip: bool, step: float, normal: Float32 | None, out: Float32
    ) -> bool:
        normal_address = None if normal is None else normal.ctypes.data
        status: int = function(
            pixels.ctypes.data,
            pixels.strides[1],
            pixels.strides[0],
            sizes_type(*sizes),
            flip,
            step,
            normal_address,
            out.ctypes.data,
        )
        return status == 0

    return call
