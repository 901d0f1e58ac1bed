"""image.load's `depth = 3`: any number of channels made three. Ports `todepth` of torch/image, init.lua."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lua_compat.errors import ImageError

Pixel = TypeVar("Pixel", np.uint8, np.uint16)


def three_channels(pixels: NDArray[Pixel], name: str) -> NDArray[Pixel]:
    """(H, W) or (H, W, 1) is repeated, of (H, W, 4) the fourth is dropped, two channels raise ImageError."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    count = pixels.shape[2]
    if count == 1:
        return np.repeat(pixels, 3, axis=2)
    if count in (3, 4):
        return pixels[:, :, :3]
    raise ImageError(f"{name}: the picture has {count} channels, expected 1, 3 or 4 (convert it to RGB)")
