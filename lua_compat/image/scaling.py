"""image.scale and the quick way to a crop of a scaled picture, in Torch7's float32 arithmetic.

Torch7 scales in two passes, first along each row, then along each column, with a float32 picture between
them. Here both passes combine whole rows of an array (resampling.py), the first in the transposed picture:
every product and sum is the same float32 operation in the same order, done for many pixels at once. Where the C code
of native.py was built, `scale_crop` goes through it: the same bits, several times quicker.
"""

from os import PathLike
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lua_compat.errors import ImageError
from lua_compat.image.decoding import decode
from lua_compat.image.geometry import Float32, as_image, crop_window, whole_number
from lua_compat.image.limits import check_size
from lua_compat.image.native import native_scale_crop
from lua_compat.image.resampling import ChannelScaler, ScalingMemory, cubic_rows, linear_plan, nearest_positions

MODES = ("bilinear", "bicubic", "simple")


def load(path: str | PathLike[str]) -> Float32:
    """Read a picture as image.load(path, 3, 'float') does: float32 (3, H, W) in 0..1. Raises ImageError."""
    return to_float(decode(path))


def to_float(pixels: NDArray[np.integer]) -> Float32:
    """uint8 or uint16 (H, W, 3) to float32 (3, H, W) in 0..1. Ports the img:mul of processJPG (init.lua)."""
    step = _step(pixels, "to_float")
    picture = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
    np.multiply(pixels.transpose(2, 0, 1), step, out=picture)
    return picture


def _step(pixels: NDArray[np.integer], function: str) -> np.float32:
    """The factor that takes whole-numbered pixels to 0..1; Lua divides in double, mul rounds to float32."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"{function}: got {pixels.dtype} of shape {pixels.shape}, expected uint8 or uint16 of shape "
            "(H, W, 3) as decode() returns"
        )
    return np.float32(1 / np.iinfo(pixels.dtype).max)


def scaled_size(size: float) -> int:
    """The whole number of pixels that image.scale makes of a width or height: at least 1, no fraction."""
    if size < 1:  # also -inf, as math.max(size, 1) has it; nan goes on and is refused
        return 1
    return whole_number(size, "scale", "a width or height")


def scale(image: ArrayLike, width: float, height: float, mode: str = "bilinear") -> Float32:
    """Resize a picture of float32 (C, H, W) or (H, W), finite values, to width x height pixels.

    bilinear: shrinking averages the covered pixels, growing interpolates; bicubic: interpolates, never
    averages; simple: takes the pixel at the truncated position. Raises ImageError. Ports image.scale
    (init.lua) and Main_scaleBilinear, Main_scaleBicubic, Main_scaleSimple (generic/image.c).
    """
    array = as_image(image, "scale")
    if mode not in MODES:
        raise ImageError(f"scale: mode is {mode!r}, expected one of {', '.join(MODES)}")
    new_width, new_height = scaled_size(width), scaled_size(height)
    check_size("scale", new_width, new_height)
    scale_channel = {"bilinear": _scale_linear, "bicubic": _scale_cubic, "simple": _scale_simple}[mode]
    if array.ndim == 2:
        return scale_channel(array, new_width, new_height)
    return np.stack([scale_channel(channel, new_width, new_height) for channel in array])


def _scale_linear(channel: Float32, width: int, height: int) -> Float32:
    across = linear_plan(channel.shape[1], width, 0, width)
    down = linear_plan(channel.shape[0], height, 0, height)
    scaler = ChannelScaler(across, down, ScalingMemory())
    np.copyto(scaler.columns, channel.T)
    result = np.empty((height, width), dtype=np.float32)
    scaler.scale_into(result)
    return result


def _scale_cubic(channel: Float32, width: int, height: int) -> Float32:
    narrowed = cubic_rows(np.ascontiguousarray(channel.T), width)
    return cubic_rows(np.ascontiguousarray(narrowed.T), height)


def _scale_simple(channel: Float32, width: int, height: int) -> Float32:
    rows = nearest_positions(channel.shape[0], height)
    columns = nearest_positions(channel.shape[1], width)
    return channel[rows[:, None], columns]


class Normalisation(NamedTuple):
    """Per channel (value - mean) / std, in float32 as a tensor's add(-mean) and div(std)."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def scale_crop(
    pixels: NDArray[np.integer],
    width: float,
    height: float,
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    *,
    flip: bool = False,
    normalisation: Normalisation | None = None,
    out: Float32 | None = None,
    memory: ScalingMemory | None = None,
) -> Float32:
    """crop(scale(to_float(pixels), width, height), x1, y1, x2, y2), then hflip and normalised if asked: the same bits.

    pixels: uint8 or uint16 (H, W, 3) from decode(). Only what the crop needs is computed. Returns float32
    (3, y2 - y1, x2 - x1), contiguous: `out` if given (a picture of a batch, say), else a new array. A loop passes the
    same `memory` to every call. Raises ImageError where scale or crop would.
    """
    step = _step(pixels, "scale_crop")
    new_width, new_height = scaled_size(width), scaled_size(height)
    check_size("scale_crop", new_width, new_height)
    rows, columns = crop_window(x1, y1, x2, y2, new_width, new_height)
    shape = (3, rows.stop - rows.start, columns.stop - columns.start)
    result = np.empty(shape, dtype=np.float32) if out is None else _checked_out(out, shape)
    task = ScaleCrop(pixels, step, new_width, new_height, rows, columns, flip, normalisation, result)
    if not in_c(task):
        in_numpy(task, memory or ScalingMemory())
    return result


class ScaleCrop(NamedTuple):
    """What scale_crop is to do, checked: the part `rows`, `columns` of the picture scaled to width x height."""

    pixels: NDArray[np.integer]
    step: np.float32
    width: int
    height: int
    rows: slice
    columns: slice
    flip: bool
    normalisation: Normalisation | None
    result: Float32


def in_c(task: ScaleCrop) -> bool:
    """Do it with the C code; False, and nothing done, where that cannot (not built, 16 bits, sides of millions)."""
    native = native_scale_crop()
    if native is None or task.pixels.dtype != np.uint8:
        return False
    source_height, source_width = task.pixels.shape[:2]
    sizes = [source_width, source_height, task.width, task.height, task.columns.start, task.rows.start]
    normal = None
    if task.normalisation:
        mean, std = task.normalisation
        normal = np.array([-mean[0], -mean[1], -mean[2], *std], dtype=np.float32)
    pixels = task.pixels.view(np.uint8)
    if pixels.strides[2] != 1 or pixels.strides[1] not in (3, 4):
        pixels = np.ascontiguousarray(pixels)
    return native(
        pixels,
        [*sizes, task.result.shape[2], task.result.shape[1]],
        task.flip,
        float(task.step),
        normal,
        task.result,
    )


def in_numpy(task: ScaleCrop, memory: ScalingMemory) -> None:
    """Do it with NumPy."""
    pixels, result, step = task.pixels, task.result, task.step
    if (task.height, task.width) == pixels.shape[:2]:  # nothing to scale
        window = pixels[task.rows, task.columns, :].transpose(2, 0, 1)
        for channel in range(3):  # a contiguous copy first: numpy converts strided elements slowly
            source = window[channel, :, ::-1] if task.flip else window[channel]
            np.multiply(np.ascontiguousarray(source), step, out=result[channel])
    else:
        across = linear_plan(pixels.shape[1], task.width, task.columns.start, task.columns.stop)
        down = linear_plan(pixels.shape[0], task.height, task.rows.start, task.rows.stop)
        scaler = ChannelScaler(across.reversed() if task.flip else across, down, memory)
        window = pixels[down.source, across.source, :].transpose(2, 1, 0)  # the plans count from its corner
        for channel in range(3):
            np.multiply(np.ascontiguousarray(window[channel]), step, out=scaler.columns)
            scaler.scale_into(result[channel])
    if task.normalisation:
        for values, mean, std in zip(result, *task.normalisation, strict=True):
            values += np.float32(-mean)
            values /= np.float32(std)


def _checked_out(out: Float32, shape: tuple[int, int, int]) -> Float32:
    if out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ImageError(
            f"scale_crop: out is {out.dtype} of shape {out.shape}, expected contiguous float32 of shape {shape}"
        )
    return out
