"""demo-data: a small real data set in ImageNet's layout, made in seconds from scikit-learn's handwritten digits.

The 1797 digits of 8 x 8 pixels (UCI, Alpaydin and Kaynak) become smooth pictures of 256 x 256. Which fifth is for
validation hangs on a digit's pixels alone, so it is the same on every machine and no picture is on both sides.
"""

import argparse
import importlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache_tools.console import add_quiet
from xnornet_port.errors import XnorNetError

__all__ = ["EPILOG", "add_arguments", "run", "write_demo_data"]

EPILOG = """examples:
  python -m cache_tools demo-data digits               # digits/train/digit_0/*.JPEG ... digits/val/digit_9/*.JPEG
  python -m cache_tools demo-data digits --limit 200 --force
  python main.py -data digits -nClasses 10 -netType alexnetxnor -binaryWeight -optimType adam -batchSize 32

exit codes: 0 done, 1 an error, told in one line, 2 wrong usage, 130 stopped by Ctrl-C
"""

SCIKIT_LEARN = "scikit-learn==1.9.1"
CLASSES = 10
LARGEST_VALUE = 16
"""Of a pixel in load_digits."""
VALIDATION_SHARE = 5
"""One picture in so many is for validation."""
SMALLEST_SIZE = 224
"""Of a picture's side: -cropSize of the training."""
LARGEST_SIZE = 4096
SMALLEST_LIMIT = 50
"""One validation and four training pictures of each class."""
JPEG_QUALITY = 90

Digits = NDArray[np.uint8]
Progress = Callable[[list["Picture"]], Iterable["Picture"]]


class Picture(NamedTuple):
    """One file to be written: its place below the data folder, and the digit, uint8 (8, 8) of 0 to 16."""

    path: Path
    digit: Digits


class Count(NamedTuple):
    """Pictures written."""

    training: int
    validation: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare DEST, --size, --limit and --force."""
    parser.add_argument("destination", type=Path, metavar="DEST", help="folder to make, with train/ and val/ in it")
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels (default 256)")
    parser.add_argument(
        "--limit", type=int, help=f"at most this many pictures, classes and split kept even (at least {SMALLEST_LIMIT})"
    )
    parser.add_argument(
        "--force", action="store_true", help="write into a folder that is not empty; an earlier demo set is replaced"
    )
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command: 0, or 130 when stopped by Ctrl-C. Raises XnorNetError or OSError, which the caller prints."""
    digits, labels = load_digits()
    try:
        count = write_demo_data(
            digits,
            labels,
            arguments.destination,
            size=arguments.size,
            limit=arguments.limit,
            force=arguments.force,
            progress=iter if arguments.quiet else progress_bar,
        )
    except KeyboardInterrupt:
        print(f"stopped: {arguments.destination} is incomplete, run again with --force", file=sys.stderr)
        return 130
    if arguments.quiet:
        return 0
    print(
        f"{arguments.destination}: {count.training} training and {count.validation} validation pictures "
        f"of {CLASSES} classes, {arguments.size} x {arguments.size} pixels"
    )
    return 0


def load_digits() -> tuple[Digits, NDArray[np.int64]]:
    """scikit-learn's digits, uint8 (1797, 8, 8) of 0 to 16, and their labels. The files come with scikit-learn."""
    try:
        data_sets = importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError as error:
        raise XnorNetError(
            f"scikit-learn is not installed: pip install '{SCIKIT_LEARN}', or here pip install -e .[demo]"
        ) from error
    digits = data_sets.load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)


def progress_bar(pictures: list[Picture]) -> Iterable[Picture]:
    """The pictures, with a bar on stderr when that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(pictures, "writing pictures", console=console, disable=not console.is_terminal)


def write_demo_data(
    digits: Digits,
    labels: NDArray[np.int64],
    destination: Path,
    *,
    size: int = 256,
    limit: int | None = None,
    force: bool = False,
    progress: Progress = iter,
) -> Count:
    """Write the digits, uint8 (n, 8, 8) of 0 to 16, as JPEGs of size x size pixels into destination/{train,val}/class.

    The same digits give the same files. Raises XnorNetError for a size or limit out of range and for a destination
    that is a file or, unless `force` is set, not empty; with `force` an earlier demo set in it is removed first.
    """
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise XnorNetError(f"--size is {size}, expected {SMALLEST_SIZE} to {LARGEST_SIZE}")
    if limit is not None and limit < SMALLEST_LIMIT:
        raise XnorNetError(f"--limit is {limit}, expected at least {SMALLEST_LIMIT}")
    pictures = planned_pictures(digits, labels, limit)
    prepare_destination(destination, force)
    for folder in {picture.path.parent for picture in pictures}:
        (destination / folder).mkdir(parents=True, exist_ok=True)
    for picture in progress(pictures):
        enlarged(picture.digit, size).save(destination / picture.path, "JPEG", quality=JPEG_QUALITY)
    training = sum(picture.path.parts[0] == "train" for picture in pictures)
    return Count(training, len(pictures) - training)


def planned_pictures(digits: Digits, labels: NDArray[np.int64], limit: int | None) -> list[Picture]:
    """All files to be written; of each class and side the first ones if there is a limit."""
    sides: dict[tuple[str, int], list[Picture]] = {}
    for number, (digit, label) in enumerate(zip(digits, labels, strict=True)):
        side = "val" if is_for_validation(digit) else "train"
        path = Path(side, f"digit_{label}", f"digit_{number:04d}.JPEG")
        sides.setdefault((side, int(label)), []).append(Picture(path, digit))
    pictures: list[Picture] = []
    for (side, _), candidates in sorted(sides.items()):
        pictures += candidates[: side_limit(side, limit)]
    return pictures


def is_for_validation(digit: Digits) -> bool:
    """Decided by the pixels alone: equal digits are on the same side, whatever their place in the data set."""
    return zlib.crc32(digit.tobytes()) % VALIDATION_SHARE == 0


def side_limit(side: str, limit: int | None) -> int | None:
    """How many pictures of one class go to one side when `limit` is for all."""
    if limit is None:
        return None
    validation = limit // CLASSES // VALIDATION_SHARE
    return validation if side == "val" else limit // CLASSES - validation


def prepare_destination(destination: Path, force: bool) -> None:
    """Make the folder. An earlier demo set goes, by the names only this command gives; nothing else is touched."""
    if destination.exists() and not destination.is_dir():
        raise XnorNetError(f"{destination}: is a file, expected a folder or a new name")
    destination.mkdir(parents=True, exist_ok=True)
    if any(destination.iterdir()):
        if not force:
            raise XnorNetError(f"{destination}: the folder is not empty (another name, or --force to write into it)")
        for path in earlier_pictures(destination):
            path.unlink()


def earlier_pictures(destination: Path) -> Iterator[Path]:
    for side in ("train", "val"):
        yield from sorted((destination / side).glob("digit_[0-9]/digit_[0-9][0-9][0-9][0-9].JPEG"))


def enlarged(digit: Digits, size: int) -> Image.Image:
    """White strokes on black, smoothly interpolated, as an RGB picture of size x size pixels."""
    small = Image.fromarray((digit.astype(np.int64) * 255 // LARGEST_VALUE).astype(np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
