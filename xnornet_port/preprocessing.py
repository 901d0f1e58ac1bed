"""From a picture file to the network's input (donkey.lua: loadImage, trainHook, testHook).

The order of the random draws is the original's; the same stream gives the same crops. What image.scale, image.crop and
image.hflip would do one after the other, `scale_crop` does at once, with the same bits.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lua_compat import image
from lua_compat.errors import ImageError
from xnornet_port.errors import XnorNetError

__all__ = ["ChannelStatistics", "Channels", "Preprocessing", "Sample", "Workspace", "evaluation_sample", "train_sample"]

Float32 = npt.NDArray[np.float32]
Channels = tuple[float, float, float]
"""Something of red, green and blue."""


class RandomStream(Protocol):
    """The draw that pre-processing makes; `lua_compat.Generator` has it."""

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float: ...


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of the red, green and blue values (0..1) of the training pictures."""

    mean: Channels
    std: Channels


@dataclass(frozen=True)
class Preprocessing:
    """What the hooks take from the options and from meanstdCache.

    image_size: the shorter side after scaling, pixels. crop_size: side of the square that is cut out. scaling_factor:
    training enlarges by 1 to 1 + scaling_factor more. statistics: None while they are being estimated; pictures are
    then not normalised, and an unreadable one is filled with 0.
    """

    image_size: int
    crop_size: int
    scaling_factor: float
    statistics: ChannelStatistics | None

    def __post_init__(self) -> None:
        if self.crop_size < 1:
            raise XnorNetError(f"-cropSize is {self.crop_size}, expected at least 1")
        if self.image_size < self.crop_size:
            raise XnorNetError(
                f"-imageSize {self.image_size} is smaller than -cropSize {self.crop_size}: nothing to cut the crop from"
            )
        _check_scaled(self.image_size, f"-imageSize {self.image_size}")

    def check_training(self) -> None:
        """Raise XnorNetError unless a random crop fits: its offset is at least 1 (ledger row 14)."""
        smallest = self.image_size * (1 + min(0.0, self.scaling_factor))
        if not smallest >= self.crop_size + 1 or not math.isfinite(self.scaling_factor):
            raise XnorNetError(
                f"training needs -imageSize above -cropSize (random crops start at pixel 1), found -imageSize "
                f"{self.image_size}, -cropSize {self.crop_size}, -scalingFactor {self.scaling_factor:g}"
            )
        largest = self.image_size * (1 + max(0.0, self.scaling_factor))
        _check_scaled(largest, f"-imageSize {self.image_size} with -scalingFactor {self.scaling_factor:g}")


def _check_scaled(shorter_side: float, options: str) -> None:
    """Not even a square picture could be scaled so far: all would count as unreadable."""
    if shorter_side > math.sqrt(image.MAX_PIXELS):
        most = math.isqrt(image.MAX_PIXELS)
        raise XnorNetError(f"{options} gives pictures of {shorter_side:g} pixels a side; expected {most} or less")


class Sample(NamedTuple):
    """One input: float32 (3, crop_size, crop_size), and why the file could not be read, or None."""

    pixels: Float32
    fault: str | None


@dataclass(frozen=True)
class Workspace:
    """Where a sample is written, and memory that is used again for the next one; new arrays where not given.

    refused: pictures that are not opened but count as unreadable, and why.
    """

    out: Float32 | None = None  # (3, crop_size, crop_size), contiguous
    memory: image.ScalingMemory | None = None
    refused: Mapping[bytes, str] = field(default_factory=dict)


NEW_MEMORY = Workspace()


def train_sample(
    path: bytes, stream: RandomStream, settings: Preprocessing, workspace: Workspace = NEW_MEMORY
) -> Sample:
    """A random crop, mirrored half the time (donkey.lua trainHook).

    Draws the scale (only when the file can be read), the row, the column and the flip: one word of `stream` each.
    """
    picture = _load(path, settings.image_size, settings.scaling_factor, stream, workspace)
    size = settings.crop_size
    top = math.ceil(stream.uniform(1e-2, picture.height - size))
    left = math.ceil(stream.uniform(1e-2, picture.width - size))
    flip = stream.uniform() > 0.5
    return _finished(picture, left, top, flip, settings, workspace)


def evaluation_sample(
    path: bytes, stream: RandomStream, settings: Preprocessing, workspace: Workspace = NEW_MEMORY
) -> Sample:
    """The centre crop (donkey.lua testHook). Draws the scale, one word of `stream`, and does not use it."""
    picture = _load(path, settings.image_size, 0.0, stream, workspace)
    left = math.ceil((picture.width - settings.crop_size) / 2)
    top = math.ceil((picture.height - settings.crop_size) / 2)
    return _finished(picture, left, top, False, settings, workspace)


@dataclass(frozen=True)
class _Picture:
    """A decoded file and the size it is to be scaled to; pixels is None, and fault says why, for an unreadable one."""

    pixels: npt.NDArray[np.integer] | None
    width: int
    height: int
    fault: str | None


def _load(path: bytes, image_size: int, scaling_factor: float, stream: RandomStream, workspace: Workspace) -> _Picture:
    """loadImage but for the scaling itself: the shorter side becomes image_size, fractions are cut off."""
    if path in workspace.refused:
        return _Picture(None, image_size, image_size, workspace.refused[path])
    try:
        pixels = image.decode(os.fsdecode(path), workspace.memory)
    except ImageError as error:
        return _Picture(None, image_size, image_size, str(error))
    random_scale = 1 + float(np.float32(stream.uniform())) * scaling_factor  # torch.rand(1)[1], of a FloatTensor
    height, width = pixels.shape[:2]
    shorter = image_size * random_scale
    if width < height:
        new_width, new_height = shorter, shorter * height / width
    else:
        new_width, new_height = shorter * width / height, shorter
    if new_width * new_height > image.MAX_PIXELS:
        fault = f"{os.fsdecode(path)}: {width} x {height} pixels are too long and narrow to be scaled to {image_size}"
        return _Picture(None, image_size, image_size, fault)
    return _Picture(pixels, image.scaled_size(new_width), image.scaled_size(new_height), None)


def _finished(
    picture: _Picture, left: int, top: int, flip: bool, settings: Preprocessing, workspace: Workspace
) -> Sample:
    """The crop, normalised: float32 arithmetic, as out:add(-mean[i]) and out:div(std[i]) on a FloatTensor."""
    size = settings.crop_size
    statistics = settings.statistics
    if picture.pixels is None:
        pixels = np.empty((3, size, size), dtype=np.float32) if workspace.out is None else workspace.out
        pixels[...] = statistics.mean[0] if statistics else 0.0
        if statistics:
            for channel, mean, std in zip(pixels, statistics.mean, statistics.std, strict=True):
                channel += np.float32(-mean)
                channel /= np.float32(std)
    else:
        pixels = image.scale_crop(
            picture.pixels,
            picture.width,
            picture.height,
            *(left, top, left + size, top + size),
            flip=flip,
            normalisation=image.Normalisation(statistics.mean, statistics.std) if statistics else None,
            out=workspace.out,
            memory=workspace.memory,
        )
    return Sample(pixels, picture.fault)
