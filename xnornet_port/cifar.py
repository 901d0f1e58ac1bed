"""Batches of CIFAR's pictures (-dataset cifar10, cifar100): all of them in memory, made as `batches.Loader` makes its.

Training takes a picture with 4 pixels of the mean colour around it, cuts 32x32 out of that at random and mirrors half
of them, as fb.resnet.torch's datasets/cifar10.lua; testing takes them as they are. Which picture is drawn as from
ImageNet: a class, then a picture of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lua_compat import Generator
from xnornet_port.batches import BatchRequest, Fault
from xnornet_port.cifar_files import CifarPart, read_cifar
from xnornet_port.cifar_names import CIFAR_CLASSES
from xnornet_port.cifar_names import CIFAR_SIDE as SIDE
from xnornet_port.data import DataSource, MainProcess, Part
from xnornet_port.errors import XnorNetError
from xnornet_port.preprocessing import Channels, ChannelStatistics
from xnornet_port.unreadable import UnreadableList

if TYPE_CHECKING:
    from xnornet_port.transfer import Mover

__all__ = ["CifarLoader", "is_cifar", "open_cifar", "pixel_statistics"]

PADDING = 4
_AT_ONCE = 1000  # pictures whose squares are in memory while the deviation is computed


@dataclass(frozen=True)
class CifarSettings:
    """What is done to pictures, beside what never changes."""

    statistics: ChannelStatistics

    def check_training(self) -> None:
        """Every random crop fits."""


class CifarSet:
    """Training or test pictures, with the fields of `dataset.Dataset` that batches depend on."""

    def __init__(self, part: CifarPart, classes: tuple[str, ...]):
        self.classes = classes
        self.pixels = part.pixels
        self.image_class = part.labels
        numbers = range(1, len(classes) + 1)
        self.sample_list = tuple(np.flatnonzero(part.labels == number) + 1 for number in numbers)

    def __len__(self) -> int:
        return len(self.image_class)


@dataclass
class CifarLoader:
    """Makes batches, its draws from `stream`: class, picture, row, column, flip, one word each."""

    train: CifarSet
    test: CifarSet
    settings: CifarSettings
    stream: Generator

    def input_shape(self, request: BatchRequest) -> tuple[int, int, int, int]:
        """(N, 3, 32, 32)"""
        return (request.size, 3, SIDE, SIDE)

    def fill(
        self, request: BatchRequest, inputs: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
    ) -> tuple[Fault, ...]:
        """Write the batch into `inputs` and `labels`; there are no unreadable pictures."""
        if request.part == "test":
            places = slice(request.first - 1, request.first - 1 + request.size)
            inputs[...] = self._normalised(self.test.pixels[places])
            labels[...] = self.test.image_class[places]
            return ()
        # those of other processes are drawn as well, so that the streams of all stay at the same place
        draws = [self._draw() for _ in range(request.before + request.size + request.after)]
        for place, (index, top, left, flip) in enumerate(draws[request.before : request.before + request.size]):
            labels[place] = self.train.image_class[index]
            inputs[place] = _crop(self._normalised(self.train.pixels[index]), top, left, flip)
        return ()

    def _draw(self) -> tuple[int, int, int, bool]:
        """A picture's place from 0, the crop's row and column from 0 in the padded picture, and whether to mirror."""
        numbers = self.train.sample_list[self.stream.random(1, len(self.train.classes)) - 1]
        index = int(numbers[self.stream.random(1, len(numbers)) - 1]) - 1
        top, left = (int(self.stream.random(1, 2 * PADDING + 1)) - 1 for _ in range(2))
        return index, top, left, self.stream.uniform() > 0.5

    def _normalised(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(..., 3, 32, 32): values of 0 to 1, less the mean, by the deviation."""
        mean, std = (
            np.array(numbers, dtype=np.float32)[:, None, None]
            for numbers in (self.settings.statistics.mean, self.settings.statistics.std)
        )
        scaled: npt.NDArray[np.float32] = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return scaled


def is_cifar(dataset: str) -> bool:
    """Whether a value of -dataset is CIFAR; any other means folders of pictures."""
    return dataset in CIFAR_CLASSES


def open_cifar(
    data: str,
    dataset: str,
    manual_seed: int,
    say: Callable[[str], None],
    unreadable: UnreadableList,
    part: Part | None = None,
    mover: Mover | None = None,
) -> DataSource:
    """What `open_data` is for folders: the pictures in the distribution that lies in `data`, see `read_cifar`.

    part, mover: as in `open_data`. Raises XnorNetError, in one line, for files that are not CIFAR's.
    """
    files = read_cifar(data, dataset)
    empty = sorted(set(range(1, CIFAR_CLASSES[dataset] + 1)) - set(files.train.labels.tolist()))
    if empty:
        raise XnorNetError(f"{data}: class {files.classes[empty[0] - 1]} of {dataset} has no training picture")
    say(f"{dataset} ({files.kind} distribution): {len(files.train.labels)} training pictures, all in memory")
    settings = CifarSettings(pixel_statistics(files.train.pixels))
    train, test = CifarSet(files.train, files.classes), CifarSet(files.test, files.classes)
    loader = CifarLoader(train, test, settings, Generator(manual_seed))
    say(f"nClasses: \t{len(files.classes)}")
    say(f"nTest: \t{len(test)}")
    return DataSource(loader, MainProcess(loader), unreadable, part, mover)


def _crop(picture: npt.NDArray[np.float32], top: int, left: int, flip: bool) -> npt.NDArray[np.float32]:
    """32x32 of the picture (3, 32, 32) with PADDING zeros, the mean colour, on each side, from row and column on."""
    padded = np.zeros((3, SIDE + 2 * PADDING, SIDE + 2 * PADDING), dtype=np.float32)
    padded[:, PADDING:-PADDING, PADDING:-PADDING] = picture
    crop = padded[:, top : top + SIDE, left : left + SIDE]
    return crop[:, :, ::-1] if flip else crop


def pixel_statistics(pixels: npt.NDArray[np.uint8]) -> ChannelStatistics:
    """Mean and deviation of each channel over all training pixels, of exact sums of whole numbers."""
    total, squares = np.zeros(3), np.zeros(3)
    for start in range(0, len(pixels), _AT_ONCE):
        some = pixels[start : start + _AT_ONCE].astype(np.uint32)
        total += some.sum(axis=(0, 2, 3), dtype=np.uint64)
        squares += (some * some).sum(axis=(0, 2, 3), dtype=np.uint64)
    count = pixels.size // 3
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    if std.min() <= 0:
        raise XnorNetError("CIFAR's training pictures are of one colour each; nothing to learn")
    return ChannelStatistics(_channels(mean / 255), _channels(std / 255))


def _channels(numbers: npt.NDArray[np.float64]) -> Channels:
    red, green, blue = numbers.tolist()
    return red, green, blue
