"""Scaling against hand calculations, against the C loops written out, and scale_crop against its parts."""

import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lua_compat.errors import ImageError
from lua_compat.image import ScalingMemory, crop, decode, hflip, scale, scale_crop, scaled_size, scaling, to_float
from lua_compat.image.scaling import Normalisation, ScaleCrop, in_c, in_numpy

ONE = np.float32(1)


def picture(*rows: list[float]) -> np.ndarray:
    return np.array([rows], dtype=np.float32)


def scale_line_like_c(source: list[np.float32], size: int) -> list[np.float32]:
    """Main_scaleLinear_rowcol (generic/image.c) element by element, every operation rounded to float32."""
    count = len(source)
    if size == count:
        return list(source)
    if size > count:
        step = np.float32(count - 1) / np.float32(size - 1)
        places = [np.float32(i) * step for i in range(size - 1)]
        parts = [(int(place), place - np.float32(int(place))) for place in places]
        mixed = [(ONE - f) * source[i] + f * source[i + 1] if count > 1 else source[0] for i, f in parts]
        return [*mixed, source[-1]]
    step = np.float32(count) / np.float32(size)
    result, start, start_share = [], 0, np.float32(0)
    for i in range(size):
        edge = np.float32(i + 1) * step
        end, end_share = int(edge), edge - np.float32(int(edge))
        total, weight = (ONE - start_share) * source[start], ONE - start_share
        for value in source[start + 1 : end]:
            total, weight = total + value, weight + ONE
        if end < count:
            total, weight = total + end_share * source[end], weight + end_share
        result.append(total / weight)
        start, start_share = end, end_share
    return result


def test_shrinking_averages_what_each_pixel_covers() -> None:
    # 3 -> 2 pixels: each covers 1.5; (1*1 + 0.5*2) / 1.5 and (0.5*2 + 1*6) / 1.5
    assert scale(picture([1, 2, 6]), 2, 1).tolist() == [[[np.float32(2) / np.float32(1.5), np.float32(7 / 1.5)]]]
    # 4 -> 2 rows of 2 -> 1 columns: plain means of four
    rows = ([0, 4], [8, 4], [1, 1], [2, 4])
    assert scale(picture(*rows), 1, 2).tolist() == [[[4.0], [2.0]]]


def test_growing_interpolates_between_corners() -> None:
    # 2 -> 5 pixels: corners stay, quarters between
    assert scale(picture([0, 4]), 5, 1).tolist() == [[[0, 1, 2, 3, 4]]]
    assert scale(picture([7]), 3, 2).tolist() == [[[7, 7, 7], [7, 7, 7]]]
    assert scale(picture([0], [4]), 1, 3).tolist() == [[[0], [2], [4]]]


def test_bicubic_by_hand() -> None:
    # 3 -> 5 pixels at 0, .5, 1, 1.5, 2 over 0, 8, 0; beyond the border linear: -8 before, -8 after.
    # at .5: p = -8, 0, 8, 0: a1 = 16, a2 = -16 + 32 = 16, a3 = 3*(0-8) + 0 + 8 = -16
    #        0 + .5*.5*(16 + .5*(16 - .5*16)) = .25 * 20 = 5; at 1.5 the mirror image
    assert scale(picture([0, 8, 0]), 5, 1, "bicubic").tolist() == [[[0, 5, 8, 5, 0]]]
    assert scale(picture([3, 5]), 1, 1, "bicubic").tolist() == [[[5]]]  # Torch7 copies the last pixel
    assert scale(picture([3]), 4, 1, "bicubic").tolist() == [[[3, 3, 3, 3]]]


def test_simple_takes_the_pixel_at_the_truncated_place() -> None:
    assert scale(picture([0, 1, 2, 3, 4]), 3, 1, "simple").tolist() == [[[0, 1, 3]]]  # 0, 1.67, 3.33
    assert scale(picture([0, 1]), 5, 1, "simple").tolist() == [[[0, 0, 0, 1, 1]]]  # 0, .4, .8, 1.2, 1.6


def test_sizes_lose_their_fraction_and_are_at_least_one() -> None:
    assert [scaled_size(size) for size in (341.99, 256.0, 1, 0.3, -5, float("-inf"))] == [341, 256, 1, 1, 1, 1]
    assert scale(picture([1, 2, 3]), 2.9, 0.1).shape == (1, 1, 2)


def test_two_dimensions_stay_two() -> None:
    gray = np.random.default_rng(1).random((9, 7), dtype=np.float32)
    for mode in ("bilinear", "bicubic", "simple"):
        assert np.array_equal(scale(gray, 4, 11, mode), scale(gray[None], 4, 11, mode)[0])


@settings(max_examples=150)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_bilinear_is_the_c_loop(height: int, width: int, new_height: int, new_width: int, seed: int) -> None:
    source = np.random.default_rng(seed).random((1, height, width), dtype=np.float32)
    narrowed = [scale_line_like_c(list(row), new_width) for row in source[0]]
    columns = [scale_line_like_c([row[x] for row in narrowed], new_height) for x in range(new_width)]
    expected = np.array(columns, dtype=np.float32).T[None]
    assert np.array_equal(scale(source, new_width, new_height), expected)


def both_ways(task: ScaleCrop) -> list[np.ndarray]:
    """What NumPy makes of it, and what the C code does, where that was built; in arrays that are nan before."""
    results = []
    for do in (lambda task: in_numpy(task, ScalingMemory()), in_c):
        result = np.full(task.result.shape, np.nan, dtype=np.float32)
        if do(task._replace(result=result)) is not False:
            results.append(result)
    return results


@pytest.mark.parametrize("pixel", [np.dtype((np.uint8, 3)), np.dtype((np.uint8, 4)), np.dtype((np.uint16, 3))])
@settings(max_examples=150)
@given(
    sizes=st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(1, 70)),
    corners=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    flip=st.booleans(),
)
def test_scale_crop_is_scale_then_crop(
    pixel: np.dtype, sizes: tuple[int, int, int, int], corners: tuple[float, ...], flip: bool
) -> None:
    height, width, new_height, new_width = sizes
    depth, (channels,) = pixel.base, pixel.shape
    shape = (height, width, channels)
    pixels = np.random.default_rng(height * width).integers(0, np.iinfo(depth).max + 1, shape, depth)[:, :, :3]
    x1, y1 = int(corners[0] * (new_width - 1)), int(corners[1] * (new_height - 1))
    x2 = x1 + 1 + int(corners[2] * (new_width - x1 - 1))
    y2 = y1 + 1 + int(corners[3] * (new_height - y1 - 1))
    expected = crop(scale(to_float(pixels), new_width, new_height), x1, y1, x2, y2)
    if flip:
        expected = hflip(expected)
    actual = scale_crop(pixels, new_width, new_height, x1, y1, x2, y2, flip=flip)
    assert actual.flags.c_contiguous
    assert actual.tobytes() == expected.tobytes()

    step = np.float32(1 / np.iinfo(depth).max)
    for normalisation in (None, Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))):
        task = ScaleCrop(
            pixels, step, new_width, new_height, slice(y1, y2), slice(x1, x2), flip, normalisation, expected
        )
        if normalisation:
            for channel, mean, std in zip(expected, *normalisation, strict=True):
                channel[...] = (channel + np.float32(-mean)) / np.float32(std)
        assert {result.tobytes() for result in both_ways(task)} == {expected.tobytes()}


def test_the_c_code_was_built_where_there_is_a_compiler() -> None:
    """Otherwise the tests of it above would test nothing."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here: NumPy does the scaling")
    folder = Path(scaling.__file__).parent
    if not list(folder.glob("_scaling*.so")):
        pytest.skip("not built: python setup.py build_ext --inplace")
    pixels = np.full((4, 4, 3), 255, dtype=np.uint8)
    out = np.empty((3, 2, 2), dtype=np.float32)
    assert in_c(ScaleCrop(pixels, np.float32(1 / 255), 2, 2, slice(0, 2), slice(0, 2), False, None, out))
    assert out.tolist() == [[[1.0, 1.0], [1.0, 1.0]]] * 3


def test_what_the_c_code_leaves_to_numpy() -> None:
    """Sides above 2**22, where float32 no longer tells edges apart by a quarter; 16 bits."""
    out = np.empty((3, 1, 1), dtype=np.float32)
    for pixels, width in (
        (np.zeros((1, 2**22 + 1, 3), np.uint8), 1),
        (np.zeros((1, 1, 3), np.uint8), 2**22 + 1),
        (np.zeros((2, 2, 3), np.uint16), 1),
    ):
        task = ScaleCrop(pixels, np.float32(1), width, 1, slice(0, 1), slice(0, 1), False, None, out)
        assert not in_c(task)
    assert not scale_crop(np.zeros((2, 2, 3), np.uint16), 1, 1, 0, 0, 1, 1).any()


def test_other_threads_run_while_the_c_code_does() -> None:
    """ctypes lets go of the interpreter: a thread that only counts gets on meanwhile."""
    pixels = np.zeros((2000, 2000, 3), dtype=np.uint8)
    out = np.empty((3, 1000, 1000), dtype=np.float32)
    task = ScaleCrop(pixels, np.float32(1), 1000, 1000, slice(0, 1000), slice(0, 1000), False, None, out)
    if not in_c(task):
        pytest.skip("not built: python setup.py build_ext --inplace")
    main_thread_runs = threading.Event()
    seen_after: list[int] = []

    def scale_until_seen() -> None:
        for count in range(1000):
            in_c(task)
            if main_thread_runs.is_set():
                seen_after.append(count)
                break

    switch = sys.getswitchinterval()
    try:
        sys.setswitchinterval(600)  # seconds: nobody is made to let go of the interpreter
        thread = threading.Thread(target=scale_until_seen)
        thread.start()
        main_thread_runs.set()
        thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert seen_after


def test_scale_crop_of_real_pictures_at_the_sizes_of_training(golden: Path) -> None:
    """The random scales of trainHook (1 to 1.5 of 256) at the four corners and in between."""
    generator = np.random.default_rng(5)
    for name in ("plain.JPEG", "tiny.JPEG", "cmyk.JPEG", "gray16.png", "gray.JPEG"):
        pixels = decode(golden / "odd_images" / name)
        height, width = pixels.shape[:2]
        for share in (0, 0.11, 0.5):
            factor = 256 * (1 + share) / min(height, width)
            scaled = scale(to_float(pixels), width * factor, height * factor)
            spare_x, spare_y = scaled.shape[2] - 224, scaled.shape[1] - 224
            for x1, y1 in [(0, 0), (spare_x, spare_y), (generator.integers(spare_x + 1), spare_y // 2)]:
                actual = scale_crop(pixels, width * factor, height * factor, x1, y1, x1 + 224, y1 + 224)
                assert np.array_equal(actual, crop(scaled, x1, y1, x1 + 224, y1 + 224))


def test_scale_crop_into_a_batch_with_memory_kept(golden: Path) -> None:
    """Old contents of `out` and of `memory` leave no trace; larger and smaller pictures share the memory."""
    memory = ScalingMemory()
    batch = np.full((4, 3, 60, 50), np.nan, dtype=np.float32)
    names = ("tiny.JPEG", "plain.JPEG", "tiny.JPEG", "gray16.png")
    for picture_out, name in zip(batch, names, strict=True):
        pixels = decode(golden / "odd_images" / name)
        result = scale_crop(pixels, 70, 66, 7, 3, 57, 63, flip=True, out=picture_out, memory=memory)
        assert result is picture_out
        assert np.array_equal(picture_out, hflip(crop(scale(to_float(pixels), 70, 66), 7, 3, 57, 63)))


def test_whole_numbers_become_float_as_a_float32_product() -> None:
    # Lua computes 1/255 in double, THFloatTensor_mul rounds it to float32 and multiplies in float32
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    step = np.float32(1 / 255)
    assert to_float(pixels)[0, 0].tolist() == [float(np.float32(value) * step) for value in range(256)]
    deep = np.array([[[0, 1, 65535]]], dtype=np.uint16)
    assert to_float(deep)[:, 0, 0].tolist() == [0, float(np.float32(1 / 65535)), float(65535 * np.float32(1 / 65535))]


BAD_CALLS = {
    "expected one of bilinear": lambda: scale(picture([1]), 2, 2, "cubic"),
    "nan": lambda: scale(picture([1]), float("nan"), 2),
    "inf": lambda: scale(picture([1]), 2, float("inf")),
    "limit of": lambda: scale(picture([1]), 100_000, 100_000),
    "float64": lambda: scale(np.zeros((3, 4, 4)), 2, 2),
    r"\(3,\)": lambda: scale(np.zeros(3, dtype=np.float32), 2, 2),
    r"\(3, 0, 4\)": lambda: scale(np.zeros((3, 0, 4), dtype=np.float32), 2, 2),
    "as decode": lambda: to_float(np.zeros((4, 4, 3), dtype=np.float32)),
    "scale_crop: got": lambda: scale_crop(np.zeros((4, 4), dtype=np.uint8), 2, 2, 0, 0, 1, 1),
    r"expected contiguous float32 of shape \(3, 2, 2\)": lambda: scale_crop(
        np.zeros((4, 4, 3), dtype=np.uint8), 3, 3, 0, 0, 2, 2, out=np.zeros((3, 2, 3), dtype=np.float32)
    ),
    "leave the picture": lambda: scale_crop(np.zeros((4, 4, 3), dtype=np.uint8), 8, 8, 5, 0, 9, 4),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_what_cannot_be_done_is_said(message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        BAD_CALLS[message]()
    assert "\n" not in str(caught.value)
