"""image.crop and image.hflip: copying pixels without changing them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lua_compat.errors import ImageError

Float32 = NDArray[np.float32]


def as_image(image: ArrayLike, function: str) -> Float32:
    """The float32 array of a picture, (C, H, W) or (H, W), or an ImageError that names `function`."""
    array = np.asarray(image)
    if array.dtype != np.float32:
        raise ImageError(
            f"{function}: the picture's elements are {array.dtype}, expected float32 (convert with "
            "to_float(pixels) or .astype(numpy.float32))"
        )
    if array.ndim not in (2, 3) or array.size == 0:
        raise ImageError(f"{function}: the picture's shape is {array.shape}, expected (C, H, W) or (H, W)")
    return array


def whole_number(value: float, function: str, name: str) -> int:
    """A coordinate or size as C makes a long of it: the fraction cut off, towards zero."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):  # text; nan; inf
        raise ImageError(f"{function}: {name} is {value!r}, expected a number") from None


def crop(image: ArrayLike, x1: float, y1: float, x2: float, y2: float) -> Float32:
    """Cut out columns x1 up to x2 and rows y1 up to y2, ends not included, counted from 0.

    image: float32 (C, H, W) or (H, W). Returns a copy of shape (C, y2 - y1, x2 - x1). Fractions are cut off
    the differences and, apart from that, off the start, as in Torch7. Raises ImageError when the cut leaves
    the picture. Ports image.crop (init.lua) and Main_cropNoScale (generic/image.c).
    """
    array = as_image(image, "crop")
    rows, columns = crop_window(x1, y1, x2, y2, array.shape[-1], array.shape[-2])
    return array[..., rows, columns].copy()


def crop_window(x1: float, y1: float, x2: float, y2: float, image_width: int, image_height: int) -> tuple[slice, slice]:
    """The rows and columns that crop cuts out; ImageError unless they are in the picture."""
    left, top = whole_number(x1, "crop", "x1"), whole_number(y1, "crop", "y1")
    width = whole_number(x2 - x1, "crop", "x2 - x1")
    height = whole_number(y2 - y1, "crop", "y2 - y1")
    if width < 1 or height < 1:
        raise ImageError(f"crop: {width} x {height} pixels were asked for, expected at least 1 x 1")
    if left < 0 or top < 0 or left + width > image_width or top + height > image_height:
        raise ImageError(
            f"crop: columns {left} to {left + width}, rows {top} to {top + height} leave the picture "
            f"({image_width} wide, {image_height} high)"
        )
    return slice(top, top + height), slice(left, left + width)


def hflip(image: ArrayLike) -> Float32:
    """Mirror left and right: a copy of image, float32 (C, H, W) or (H, W). Ports image.hflip (init.lua)."""
    return np.ascontiguousarray(as_image(image, "hflip")[..., ::-1])
