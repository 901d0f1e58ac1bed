"""PGM and PPM files as libppm_Main_load (generic/ppm.c) of torch/image reads them."""

import re

import numpy as np
from numpy.typing import NDArray

from lua_compat.errors import ImageError
from lua_compat.image.channels import three_channels
from lua_compat.image.limits import check_size

CHANNELS = {b"P2": 1, b"P3": 3, b"P5": 1, b"P6": 3}
NUMBER = re.compile(rb"(?:[ ,\t\r\n]|#[^\r\n]*[\r\n])*([0-9]{1,9})(?:#[^\r\n]*)?[^0-9]")


def decode_pnm(data: bytes, name: str) -> NDArray[np.uint8]:
    """A PGM or PPM file's bytes as uint8 (H, W, 3).

    Binary samples stay as they are, whatever the largest value (maxval) says; text samples are scaled to 255.
    """
    kind = data[:2]
    if kind not in CHANNELS:
        raise ImageError(f"{name}: not a PGM or PPM file (it starts with {data[:8]!r})")
    (width, height, largest), start = _header_numbers(data, name)
    check_size(name, width, height)
    if not 1 <= largest <= 255:
        raise ImageError(f"{name}: the largest value is {largest}, expected 1 to 255 (8-bit samples)")
    shape = (height, width, CHANNELS[kind])
    count = height * width * CHANNELS[kind]
    if kind in (b"P5", b"P6"):
        samples = np.frombuffer(data, np.uint8, offset=start, count=min(count, len(data) - start))
    else:
        samples = _text_samples(data[start:], count, largest, name)
    if len(samples) < count:
        raise ImageError(f"{name}: the file ends after {len(samples)} of {count} samples")
    return three_channels(samples.reshape(shape), name)


def _header_numbers(data: bytes, name: str) -> tuple[tuple[int, int, int], int]:
    """Width, height and largest value, and where the samples start: one character after the last digit."""
    numbers, position = [], 2
    for field in ("width", "height", "largest value"):
        match = NUMBER.match(data, position)
        if match is None:
            raise ImageError(f"{name}: damaged PGM or PPM file (no {field} at byte {position})")
        numbers.append(int(match[1]))
        position = match.end()
    return (numbers[0], numbers[1], numbers[2]), position


def _text_samples(text: bytes, count: int, largest: int, name: str) -> NDArray[np.uint8]:
    """Up to `count` decimal numbers, each times 255 divided by the largest value, cut to a whole number."""
    words = text.split(None, count)[:count]
    try:
        numbers = np.array([int(word) for word in words], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ImageError(f"{name}: damaged PGM or PPM file ({error})") from error
    if numbers.size and not 0 <= numbers.min() <= numbers.max() <= largest:
        raise ImageError(f"{name}: damaged PGM or PPM file (a sample is not in 0 to {largest})")
    return (255 * numbers // largest).astype(np.uint8)
