"""Torch7's image package, bit for bit: read a picture, scale it, crop it, mirror it.

    pixels = decode("picture.JPEG")             # (H, W, 3) as stored, uint8
    picture = to_float(pixels)                  # float32 (3, H, W) in 0..1; load(path) does both
    small = scale(picture, 341, 256)            # also mode="bicubic" and mode="simple"
    patch = hflip(crop(small, 50, 10, 274, 234))
    patch = scale_crop(pixels, 341, 256, 50, 10, 274, 234, flip=True)   # the same bits, much quicker

Widths come before heights, as in Torch7; coordinates count from 0 and the end is not included. What cannot be
read or done raises `lua_compat.errors.ImageError`.
"""

from lua_compat.image.decoding import decode
from lua_compat.image.geometry import crop, hflip
from lua_compat.image.limits import MAX_FILE_BYTES, MAX_PIXELS
from lua_compat.image.resampling import ScalingMemory
from lua_compat.image.scaling import Normalisation, load, scale, scale_crop, scaled_size, to_float

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "Normalisation",
    "ScalingMemory",
    "crop",
    "decode",
    "hflip",
    "load",
    "scale",
    "scale_crop",
    "scaled_size",
    "to_float",
]
