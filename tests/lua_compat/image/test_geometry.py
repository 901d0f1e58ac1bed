"""crop and hflip by hand: pixel values say where they came from."""

import numpy as np
import pytest

from lua_compat import tensor
from lua_compat.errors import ImageError
from lua_compat.image import crop, hflip

# value = 100 * channel + 10 * row + column; 3 channels, 4 rows, 5 columns
PICTURE = (100 * np.arange(3)[:, None, None] + 10 * np.arange(4)[:, None] + np.arange(5)).astype(np.float32)


def test_crop_counts_from_0_and_leaves_the_end_out() -> None:
    cut = crop(PICTURE, 1, 2, 4, 4)
    assert cut[0].tolist() == [[21, 22, 23], [31, 32, 33]]
    assert cut[2].tolist() == [[221, 222, 223], [231, 232, 233]]
    assert np.array_equal(crop(PICTURE, 0, 0, 5, 4), PICTURE)
    assert crop(PICTURE[0], 4, 3, 5, 4).tolist() == [[34]]


def test_crop_cuts_fractions_off_the_start_and_off_the_size() -> None:
    # 4.2 - 1.9 = 2.3: two columns from column 1; -0.5 becomes 0 as in C
    assert crop(PICTURE, 1.9, -0.5, 4.2, 1)[0].tolist() == [[1, 2]]


def test_crop_and_hflip_are_copies() -> None:
    source = PICTURE.copy()
    crop(source, 0, 0, 5, 4)[:] = -1
    hflip(source)[:] = -1
    assert np.array_equal(source, PICTURE)


def test_hflip_mirrors_columns() -> None:
    assert hflip(PICTURE)[1].tolist() == [[100 + 10 * row + column for column in (4, 3, 2, 1, 0)] for row in range(4)]
    assert hflip(PICTURE).flags.c_contiguous
    assert hflip(PICTURE[0])[3].tolist() == [34, 33, 32, 31, 30]


def test_torch7_tensors_are_pictures_too() -> None:
    assert np.array_equal(hflip(tensor(PICTURE.copy())), hflip(PICTURE))


@pytest.mark.parametrize("corners", [(-1, 0, 2, 2), (0, -1, 2, 2), (3, 0, 6, 2), (0, 3, 2, 5), (5, 0, 6, 1)])
def test_crop_outside_is_an_error(corners: tuple[int, int, int, int]) -> None:
    with pytest.raises(ImageError, match=r"leave the picture \(5 wide, 4 high\)"):
        crop(PICTURE, *corners)


@pytest.mark.parametrize("corners", [(2, 2, 2, 3), (3, 0, 1, 2), (0, 0, 0.9, 2)])
def test_crop_of_nothing_is_an_error(corners: tuple[float, float, float, float]) -> None:
    with pytest.raises(ImageError, match="at least 1 x 1"):
        crop(PICTURE, *corners)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ImageError, match=r"crop: .*uint8, expected float32"):
        crop(np.zeros((3, 4, 5), dtype=np.uint8), 0, 0, 1, 1)
    with pytest.raises(ImageError, match=r"hflip: .*shape is \(4,\)"):
        hflip(np.zeros(4, dtype=np.float32))
    with pytest.raises(ImageError, match="x1 is nan"):
        crop(PICTURE, float("nan"), 0, 1, 1)
