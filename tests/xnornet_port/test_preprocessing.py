"""Single samples. Whole batches are compared with real Torch7's in test_data.py, bit for bit."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from lua_compat import Generator, image
from xnornet_port.errors import XnorNetError
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing, evaluation_sample, train_sample

STATISTICS = ChannelStatistics(mean=(0.5, 0.25, 0.125), std=(0.5, 0.3, 0.2))
SETTINGS = Preprocessing(image_size=256, crop_size=224, scaling_factor=0.0, statistics=STATISTICS)
READABLE = ("plain.JPEG", "gray.JPEG", "cmyk.JPEG", "tiny.JPEG", "progressive.JPEG", "exact256.JPEG", "truncated.JPEG")


def words_taken(before: bytes, after: Generator) -> int:
    """How many 32-bit words a stream has given since its state was `before`."""
    other = Generator(1)
    other.state = before
    for count in range(10):
        if other.state == after.state:
            return count
        other.random()
    raise AssertionError("more than 9 words")


def original_train_sample(path: Path, stream: Generator, scaling_factor: float) -> np.ndarray:
    """trainHook step by step, as donkey.lua has it, from the parts of the image package."""
    picture = image.load(path)
    scale = 1 + float(stream.rand(1)[0]) * scaling_factor
    _, height, width = picture.shape
    if width < height:
        picture = image.scale(picture, 256 * scale, 256 * scale * height / width)
    else:
        picture = image.scale(picture, 256 * scale * width / height, 256 * scale)
    top = math.ceil(stream.uniform(1e-2, picture.shape[1] - 224))
    left = math.ceil(stream.uniform(1e-2, picture.shape[2] - 224))
    out = image.crop(picture, left, top, left + 224, top + 224)
    if stream.uniform() > 0.5:
        out = image.hflip(out)
    for channel in range(3):
        out[channel] = (out[channel] + np.float32(-STATISTICS.mean[channel])) / np.float32(STATISTICS.std[channel])
    return out


@pytest.mark.parametrize("scaling_factor", [0.0, 0.3])
@pytest.mark.parametrize("name", READABLE)
def test_train_sample_is_the_original_step_by_step(golden: Path, name: str, scaling_factor: float) -> None:
    settings = Preprocessing(256, 224, scaling_factor, STATISTICS)
    path = golden / "odd_images" / name
    for seed in (1, 2):
        sample = train_sample(os.fsencode(path), Generator(seed), settings)
        assert sample.fault is None
        np.testing.assert_array_equal(sample.pixels, original_train_sample(path, Generator(seed), scaling_factor))


@pytest.mark.parametrize("name", READABLE)
def test_evaluation_sample_is_the_centre_crop(golden: Path, name: str) -> None:
    """Ledger row 14: the crop begins at ceil((size - 224) / 2), counted from 0."""
    path = golden / "odd_images" / name
    _, height, width = image.load(path).shape
    if width < height:
        scaled = image.scale(image.load(path), 256, 256 * height / width)
    else:
        scaled = image.scale(image.load(path), 256 * width / height, 256)
    top, left = math.ceil((scaled.shape[1] - 224) / 2), math.ceil((scaled.shape[2] - 224) / 2)
    expected = image.crop(scaled, left, top, left + 224, top + 224)
    expected += np.float32([-0.5, -0.25, -0.125])[:, None, None]
    expected /= np.float32([0.5, 0.3, 0.2])[:, None, None]
    sample = evaluation_sample(os.fsencode(path), Generator(1), Preprocessing(256, 224, 0.5, STATISTICS))
    np.testing.assert_array_equal(sample.pixels, expected)


def test_words_taken_from_the_stream(golden: Path) -> None:
    """Ledger rows 13 and 15: scale, row, column, flip; no scale when the file cannot be read; testing draws it too."""
    readable = os.fsencode(golden / "odd_images" / "plain.JPEG")
    unreadable = os.fsencode(golden / "odd_images" / "text.JPEG")
    stream = Generator(2)
    for draw, path, count in (
        (train_sample, readable, 4),
        (train_sample, unreadable, 3),
        (evaluation_sample, readable, 1),
        (evaluation_sample, unreadable, 0),
    ):
        before = stream.state
        draw(path, stream, SETTINGS)
        assert words_taken(before, stream) == count


@pytest.mark.parametrize("name", ["text.JPEG", "empty.JPEG", "missing.JPEG"])
def test_unreadable_picture_is_the_red_mean_in_every_channel(golden: Path, name: str) -> None:
    """Ledger row 15. (0.5 - mean) / std: red 0, green (0.5 - 0.25) / 0.3, blue (0.5 - 0.125) / 0.2 = 1.875."""
    for draw in (train_sample, evaluation_sample):
        pixels, fault = draw(os.fsencode(golden / "odd_images" / name), Generator(1), SETTINGS)
        assert pixels.shape == (3, 224, 224)
        assert [np.unique(channel).tolist() for channel in pixels] == [
            [0.0],
            [float(np.float32(0.25) / np.float32(0.3))],
            [float(np.float32(0.375) / np.float32(0.2))],
        ]
        assert fault is not None
        assert name in fault


def test_without_statistics_pixels_are_between_0_and_1(golden: Path) -> None:
    settings = Preprocessing(256, 224, 0.0, None)
    pixels, _ = train_sample(os.fsencode(golden / "odd_images" / "plain.JPEG"), Generator(1), settings)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    pixels, fault = train_sample(b"missing", Generator(1), settings)
    assert not pixels.any()
    assert fault is not None


def test_a_line_of_pixels_counts_as_unreadable(tmp_path: Path) -> None:
    """1 x 3000 pixels scaled to 2000 x 6,000,000 would take 134 GiB; the original runs out of memory, in its pcall."""
    (tmp_path / "line.ppm").write_bytes(b"P6\n1 3000\n255\n" + bytes(9000))
    settings = Preprocessing(2000, 224, 0.0, STATISTICS)
    stream = Generator(1)
    before = stream.state
    _, fault = train_sample(os.fsencode(tmp_path / "line.ppm"), stream, settings)
    assert fault is not None
    assert "too long and narrow" in fault
    assert words_taken(before, stream) == 4  # the file was read: its scale is drawn


def test_crop_as_large_as_the_picture_can_be_tested_but_not_trained(golden: Path) -> None:
    settings = Preprocessing(224, 224, 0.0, STATISTICS)
    assert evaluation_sample(os.fsencode(golden / "odd_images" / "plain.JPEG"), Generator(1), settings).fault is None
    with pytest.raises(XnorNetError, match="training needs -imageSize above -cropSize"):
        settings.check_training()
    Preprocessing(225, 224, 0.0, STATISTICS).check_training()


@pytest.mark.parametrize("scaling_factor", [-0.2, math.nan, math.inf, -math.inf])
def test_scaling_factors_that_leave_no_room_for_the_crop(scaling_factor: float) -> None:
    """256 * 0.8 = 204.8 is smaller than the crop."""
    with pytest.raises(XnorNetError, match="-scalingFactor"):
        Preprocessing(256, 224, scaling_factor, STATISTICS).check_training()
    Preprocessing(256, 224, -0.1, STATISTICS).check_training()  # 230.4


def test_sizes_to_which_nothing_can_be_scaled() -> None:
    """9459 x 9459 is the largest square within image.MAX_PIXELS; the pictures would all count as unreadable."""
    with pytest.raises(
        XnorNetError, match="-imageSize 9460 gives pictures of 9460 pixels a side; expected 9459 or less"
    ):
        Preprocessing(9460, 224, 0.0, STATISTICS)
    Preprocessing(9459, 224, 0.0, STATISTICS).check_training()
    with pytest.raises(XnorNetError, match="-imageSize 256 with -scalingFactor 40 gives pictures of 10496 pixels"):
        Preprocessing(256, 224, 40, STATISTICS).check_training()


@pytest.mark.parametrize(("image_size", "crop_size"), [(256, 0), (256, -1), (223, 224)])
def test_impossible_sizes(image_size: int, crop_size: int) -> None:
    with pytest.raises(XnorNetError, match="-cropSize"):
        Preprocessing(image_size, crop_size, 0.0, None)
