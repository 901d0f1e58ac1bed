"""image.load's first half: the pixels of a file as the decoder gives them, every kind made three channels.

The kind is found by the file's first bytes, then by its name, as in `load` of torch/image, init.lua. JPEGs go
through simplejpeg (libjpeg-turbo: the bytes of Torch7's libjpeg); what that complains of goes through Pillow.
"""

import os
import stat
from os import PathLike

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lua_compat.errors import ImageError
from lua_compat.image.channels import three_channels
from lua_compat.image.limits import MAX_FILE_BYTES, check_size
from lua_compat.image.pillow import pillow_pixels
from lua_compat.image.png import decode_png
from lua_compat.image.pnm import decode_pnm
from lua_compat.image.resampling import ScalingMemory

EXTENSIONS = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "ppm": "pnm", "pgm": "pnm"}

END_OF_IMAGE = b"\xff\xd9"


def decode(path: str | PathLike[str], memory: ScalingMemory | None = None) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read a JPEG, PNG, PPM or PGM file as an array (H, W, 3): uint8, or uint16 for a 16-bit PNG.

    As image.load(path, 3) does: gray is repeated three times, alpha is dropped, of CMYK the first three
    channels stay as they are, a truncated JPEG gives what is there and the rest in gray. Raises ImageError
    with the path and the reason for everything that cannot be read, and for pictures beyond MAX_PIXELS.
    With `memory` the pixels may lie in it, until the next call with the same memory.
    """
    name = os.fspath(path)
    data = _read(name)
    kind = _kind(data, name)
    if kind == "jpeg":
        return _decode_jpeg(data, name, memory or ScalingMemory())
    if kind == "png":
        return decode_png(data, name)
    return decode_pnm(data, name)


def _read(name: str) -> bytes:
    """The whole file, after a look at what it is: a device or pipe might never end."""
    try:
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for its other end
        try:
            return _read_regular(descriptor, name)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a zero byte in the name
        raise ImageError(f"{name!r}: cannot be read ({error})") from error


def _read_regular(descriptor: int, name: str) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
        raise ImageError(f"{name}: is {what}, expected a picture file")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageError(f"{name}: {status.st_size} bytes are more than the limit of {MAX_FILE_BYTES}")
    data = os.read(descriptor, status.st_size)
    while len(data) < status.st_size and (more := os.read(descriptor, status.st_size - len(data))):
        data += more
    return data


def _kind(data: bytes, name: str) -> str:
    if not data:
        raise ImageError(f"{name}: the file is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG"):
        return "png"
    if data[:2] in (b"P2", b"P3", b"P5", b"P6"):
        return "pnm"
    kind = EXTENSIONS.get(os.path.splitext(name)[1][1:].lower())
    if kind is None:
        raise ImageError(f"{name}: not a JPEG, PNG, PPM or PGM picture (it starts with {data[:8]!r})")
    return kind


def _decode_jpeg(data: bytes, name: str, memory: ScalingMemory) -> NDArray[np.uint8]:
    """simplejpeg first; where it finds anything to complain of, Pillow, which tells warnings from errors.

    (simplejpeg with strict=False is no way: after an error it returns memory that nothing was written to.)
    """
    if not data.startswith(b"\xff\xd8"):
        raise ImageError(f"{name}: not a JPEG file (it starts with {data[:8]!r})")
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        check_size(name, width, height)
        # of cyan, magenta, yellow and black Torch7 takes the first three for red, green and blue
        wanted = "CMYK" if colorspace in ("CMYK", "YCCK") else "RGBX"  # quicker than RGB
        buffer = memory.pixels(height * width * len(wanted))
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, wanted, buffer=buffer)
    except (ValueError, KeyError):  # KeyError: channels sampled in a way that simplejpeg has no name for
        pixels = _decode_like_libjpeg(data, name)
    return three_channels(pixels, name)


def _decode_like_libjpeg(data: bytes, name: str) -> NDArray[np.uint8]:
    """Through Pillow, whose libjpeg reads on after a warning (a truncated file is one), as Torch7's does.

    Pillow itself would refuse a truncated file, so it is given the end marker that libjpeg supplies when its data
    run out; and it inverts CMYK, which is undone.
    """
    pixels = pillow_pixels(data + END_OF_IMAGE * 64, "JPEG", name)
    return 255 - pixels if pixels.ndim == 3 and pixels.shape[2] == 4 else pixels
