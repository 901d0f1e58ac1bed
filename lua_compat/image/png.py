"""PNG files as libpng_Main_load (generic/png.c) and processPNG (init.lua) of torch/image read them."""

import struct

import numpy as np
from numpy.typing import NDArray

from lua_compat.errors import ImageError
from lua_compat.image.channels import three_channels
from lua_compat.image.limits import check_size
from lua_compat.image.pillow import pillow_pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">8x4x4sIIBB")  # after signature and length: chunk name, width, height, bits, colour type
RGB, RGBA = 2, 6


def decode_png(data: bytes, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """A PNG file's bytes as (H, W, 3): uint8, or uint16 where the file has 16 bits per channel."""
    if len(data) < HEADER.size or not data.startswith(SIGNATURE):
        raise ImageError(f"{name}: not a PNG file (it starts with {data[:8]!r})")
    chunk, width, height, bits, color_type = HEADER.unpack_from(data)
    if chunk != b"IHDR":
        raise ImageError(f"{name}: damaged PNG file (its first chunk is {chunk!r}, expected b'IHDR')")
    check_size(name, width, height)
    if bits == 16 and color_type in (RGB, RGBA):
        return three_channels(_sixteen_bits(data, "RGB" if color_type == RGB else "RGBA", name), name)
    return three_channels(pillow_pixels(data, "PNG", name), name)


def _sixteen_bits(data: bytes, mode: str, name: str) -> NDArray[np.uint16]:
    """Pillow keeps eight bits of a 16-bit colour, so read twice: the high bytes, then the low ones.

    PNG stores the high byte first; read as if the low byte came first ("16L"), the "high" one is the second.
    """
    high = pillow_pixels(data, "PNG", name, rawmode=f"{mode};16B")
    low = pillow_pixels(data, "PNG", name, rawmode=f"{mode};16L")
    return np.left_shift(high, 8, dtype=np.uint16) | low
