"""lua_compat.image against real Torch7's image package: golden/images.t7, equal in every bit.

README.md of golden says what each field holds. Read with torchfile, so that these tests stand without our own reader.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchfile

import lua_compat
from lua_compat import image
from lua_compat.errors import ImageError

READABLE = [
    "cmyk.JPEG",
    "exact256.JPEG",
    "gray.JPEG",
    "gray16.png",
    "plain.JPEG",
    "png_named.JPEG",
    "progressive.JPEG",
    "rgb.png",
    "rgba.png",
    "s444.JPEG",
    "tiny.JPEG",
    "truncated.JPEG",
]
UNREADABLE = ["empty.JPEG", "text.JPEG"]


@pytest.fixture(scope="module")
def answers(golden: Path) -> dict[str, dict[str, Any]]:
    """File name -> field -> Torch7's answer."""
    table = torchfile.load(str(golden / "images.t7"), use_list_heuristic=False)
    return {name.decode(): {key.decode(): value for key, value in row.items()} for name, row in table.items()}


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal shapes and equal float32 bit patterns; says how many differ, and where the first one is."""
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    different = np.ascontiguousarray(actual).view(np.uint32) != np.ascontiguousarray(expected).view(np.uint32)
    if different.any():
        place = tuple(int(index[0]) for index in np.nonzero(different))
        worst = np.abs(actual - expected).max()
        pytest.fail(
            f"{different.sum()} of {different.size} differ, by up to {worst}; first at {place}: "
            f"{actual[place]!r}, expected {expected[place]!r}"
        )


def assert_same_sum(picture: np.ndarray, expected: float) -> None:
    """Torch7's sum in double; ours adds in another order, hence the last digits of a double."""
    assert picture.sum(dtype=np.float64) == pytest.approx(expected, rel=1e-14)


def test_every_picture_is_covered(answers: dict[str, dict[str, Any]]) -> None:
    assert sorted(answers) == sorted(READABLE + UNREADABLE)
    assert {name for name, answer in answers.items() if answer["ok"]} == set(READABLE)


@pytest.mark.parametrize("name", READABLE)
def test_load(name: str, golden: Path, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[name]
    picture = image.load(golden / "odd_images" / name)
    assert list(picture.shape) == [answer["size"][i] for i in (1, 2, 3)]
    middle = picture.shape[1] // 2 - 1  # row height//2, counted from 1
    assert_same_bits(picture[:, :8, :8], answer["corner"])
    assert_same_bits(picture[:, middle : middle + 8], answer["mid"])
    assert_same_sum(picture, answer["sum"])


@pytest.mark.parametrize("name", READABLE)
def test_scale(name: str, golden: Path, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[name]
    picture = image.load(golden / "odd_images" / name)
    assert_same_bits(image.scale(picture, 37, 23), answer["down"])
    assert_same_bits(image.scale(picture[:, :20, :30], 71, 49), answer["up"])
    assert_same_bits(image.scale(picture, 37, 23, "bicubic"), answer["bicubic"])
    assert_same_bits(image.scale(picture, 37, 23, "simple"), answer["simple"])


@pytest.mark.parametrize("name", READABLE)
def test_centre_crop_of_the_scaled_picture(name: str, golden: Path, answers: dict[str, dict[str, Any]]) -> None:
    """The way of a test picture (testHook of donkey.lua), in steps and in one."""
    answer = answers[name]
    pixels = image.decode(golden / "odd_images" / name)
    height, width = pixels.shape[:2]
    size = (256, 256 * height / width) if width < height else (256 * width / height, 256)
    scaled = image.scale(image.to_float(pixels), *size)
    assert list(scaled.shape) == [answer["scaledSize"][i] for i in (1, 2, 3)]
    assert_same_sum(scaled, answer["scaledSum"])

    left, top = math.ceil((scaled.shape[2] - 224) / 2), math.ceil((scaled.shape[1] - 224) / 2)
    crop = image.crop(scaled, left, top, left + 224, top + 224)
    assert_same_sum(crop, answer["cropSum"])
    assert_same_bits(crop[:, 99:107], answer["cropRows"])
    assert_same_bits(image.hflip(crop)[:, :2], answer["flipRow"])

    assert_same_bits(image.scale_crop(pixels, *size, left, top, left + 224, top + 224), crop)
    flipped = image.scale_crop(pixels, *size, left, top, left + 224, top + 224, flip=True)
    assert_same_bits(flipped[:, :2], answer["flipRow"])
    assert_same_bits(flipped, image.hflip(crop))


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_torch7_cannot_read_is_an_error(name: str, golden: Path) -> None:
    with pytest.raises(ImageError, match=name):
        image.load(golden / "odd_images" / name)


def test_public_names_exist() -> None:
    assert lua_compat.image is image
    assert all(hasattr(image, name) for name in image.__all__)
    assert {"load", "scale", "crop", "hflip", "decode", "scale_crop"} <= set(image.__all__)
